"""Reading weights from a file without running any code that is in it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from torch import Tensor

from promptot.errors import PromptotError

DAMAGED = (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError, AttributeError)
"""What reading a damaged file of tensors raises; the last where torch lacks a type it names."""


def read_state_dict(path: Path, pickled_fix: str | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file, or of a state dict that `torch.save` wrote.

    Nothing is unpickled but tensors and plain containers (`weights_only`).

    Args:
        path: the file; ".safetensors" is read as such, all else as torch's.
        pickled_fix: what to do about a file that can't be read that way.

    Raises:
        PromptotError: there is no such file, it is damaged, it would need code to be run, or it
            holds something else.
    """
    if not path.is_file():
        raise PromptotError(f"There is no file '{path}'.", fix="Check the path of the weights.")
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except DAMAGED as error:
            raise PromptotError(
                f"'{path}' is not a readable safetensors file ({error!s:.200}).",
                fix="Download or save it again.",
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, all of them about this file
        raise PromptotError(
            f"'{path}' is not a state dict that can be read without running code.",
            fix=pickled_fix
            or "Take the model's safetensors file, or save its state dict as one where you trust "
            "the file.",
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise PromptotError(
            f"'{path}' holds no state dict.", fix="Save `model.state_dict()` and pass that file."
        )
    return {key.removeprefix("module."): value for key, value in state.items()}
