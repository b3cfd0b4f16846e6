"""Whether a backbone could be loaded, worked out from configurations alone: nothing is downloaded.

The answer is the loaders' own checks of names and configurations.
"""

from __future__ import annotations

import importlib.util
from functools import cache

from promptot.errors import PromptotError


@cache
def refusal(name: str) -> str | None:
    """Why `load_backbone(name)` refuses this kind of model, in a sentence; None if it loads it.

    A name that says nothing of its kind (a folder, a file, a repository) is answered by what
    can be seen without reading weights.

    Args:
        name: as for `load_backbone`.

    Example:
        >>> refusal("open_clip:ViT-B-16/openai") is None
        True
        >>> refusal("open_clip:RN50/laion7b")
        "open_clip has no weights 'laion7b' for RN50."
    """
    source, _, rest = name.partition(":")
    try:
        if source == "bundled":
            _check_bundled(rest)
        elif source == "open_clip" and not rest.startswith(("local-dir:", "hf-hub:")):
            _check_open_clip(rest)
        elif source == "hf":
            _check_hf()
    except PromptotError as error:
        return error.problem
    return None


def _check_bundled(name: str) -> None:
    from promptot.backbones.loaders.bundled_clip import list_bundled

    if name not in list_bundled():
        raise PromptotError(f"No model '{name}' is bundled.")


def _check_open_clip(spec: str) -> None:
    from promptot.backbones.loaders.open_clip_sources import find_open_clip

    find_open_clip(spec)


def _check_hf() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise PromptotError("Loading 'hf:' weights needs transformers.")
