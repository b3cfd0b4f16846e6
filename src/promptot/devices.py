"""Where to compute."""

from __future__ import annotations

import torch

from promptot.errors import PromptotError, nearest

KINDS = ("auto", "cpu", "cuda", "mps")


def out_of_memory(error: RuntimeError, work: str, fix: str) -> PromptotError:
    """What to say where a GPU's memory was not enough.

    Args:
        error: PyTorch's `OutOfMemoryError`.
        work: what it was not enough for, such as " for training"; may be empty.
        fix: what to do.
    """
    said = " ".join(str(error).split()).partition(". GPU")[0]
    return PromptotError(f"The memory of the GPU was not enough{work}: {said}.", fix=fix)


def pick_device(name: str = "auto") -> torch.device:
    """The device called "auto" (the best there is), "cpu", "cuda", "cuda:<index>" or "mps".

    Raises:
        PromptotError: an unknown name, or a device that this machine lacks.

    Example:
        >>> pick_device("cpu")
        device(type='cpu')
    """
    kind, _, index = name.partition(":")
    if kind not in KINDS or (index and not (kind == "cuda" and index.isdigit())):
        raise PromptotError(f"Unknown device '{name}'.", fix=nearest(kind, KINDS))
    cuda = torch.cuda.device_count() if torch.cuda.is_available() else 0
    mps = torch.backends.mps.is_available()
    if kind == "auto":
        return torch.device("cuda" if cuda else "mps" if mps else "cpu")
    if (kind == "cuda" and int(index or 0) >= cuda) or (kind == "mps" and not mps):
        raise PromptotError(f"This machine has no device '{name}'.", fix="Use --device cpu.")
    return torch.device(name)
