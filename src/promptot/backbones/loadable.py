"""Whether a backbone could be loaded, worked out from configurations alone: nothing is downloaded.

The answer is the loaders' own: of an open_clip name, the model is built as the loader would build
it, but with one block a tower and without memory for its weights (PyTorch's "meta" device), and
handed to the loader's checks and conversion.
"""

from __future__ import annotations

import importlib.util
from functools import cache
from typing import Any

import torch

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
        >>> refusal("open_clip:RN50/openai")
        'This open_clip model has a ResNet image tower, which is not supported yet.'
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
    from open_clip.factory import set_model_preprocess_cfg
    from open_clip.pretrained import get_pretrained_cfg
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    from promptot.backbones.loaders.open_clip_models import convert
    from promptot.backbones.loaders.open_clip_sources import find_open_clip

    architecture, _, tag = spec.rpartition("/")
    find_open_clip(spec)
    model, tokenizer = _outline(architecture)
    defaults = PreprocessCfg(size=model.visual.image_size)
    settings = merge_preprocess_dict(defaults, get_pretrained_cfg(architecture, tag))
    set_model_preprocess_cfg(model, settings)
    with torch.device("meta"):
        convert(model, tokenizer, f"open_clip:{spec}")


@cache
def _outline(architecture: str) -> tuple[Any, Any]:
    """The model with one block a tower and no memory for its weights; its tokenizer.

    A tokenizer of the Hugging Face hub would have to be fetched; a stand-in has its type's name.
    """
    import open_clip
    from open_clip.tokenizer import SimpleTokenizer

    from promptot.backbones.loaders.open_clip_models import build_model

    config = open_clip.get_model_config(architecture)
    for tower in ("vision_cfg", "text_cfg"):
        config[tower]["layers"] = 1
    model = build_model(config)
    if "hf_tokenizer_name" in config["text_cfg"]:
        stand_in = type("HFTokenizer", (), {"name": config["text_cfg"]["hf_tokenizer_name"]})
        return model, stand_in()
    return model, SimpleTokenizer()


def _check_hf() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise PromptotError("Loading 'hf:' weights needs transformers.")
