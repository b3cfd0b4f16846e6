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
            _check_open_clip(name, rest)
        elif source == "hf":
            _check_transformers(name)
    except PromptotError as error:
        return error.problem
    return None


def _check_bundled(name: str) -> None:
    from promptot.backbones.loaders.bundled_clip import list_bundled

    if name not in list_bundled():
        raise PromptotError(f"No model '{name}' is bundled.")


def _check_open_clip(name: str, spec: str) -> None:
    from promptot.backbones.loaders.open_clip_sources import find_open_clip

    if find_open_clip(spec).config["text_cfg"].get("hf_tokenizer_name"):
        _check_transformers(name)


def missing(name: str) -> str | None:
    """What a backbone that needs transformers is refused for; None where it is installed."""
    if importlib.util.find_spec("transformers") is not None:
        return None
    what = "Loading 'hf:' weights" if name.startswith("hf:") else "The tokenizer of this model"
    return f"{what} needs transformers."


def _check_transformers(name: str) -> None:
    reason = missing(name)
    if reason is not None:
        raise PromptotError(reason, fix="pip install 'promptot[hf]'")
