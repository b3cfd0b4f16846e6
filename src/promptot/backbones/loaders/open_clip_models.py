"""Weights from open_clip: pretrained tags, the Hub and local folders."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import Untold, infer_architecture
from promptot.backbones.backbone import Backbone
from promptot.backbones.layouts import SIZES, from_openai
from promptot.backbones.library_warnings import refuse_warnings
from promptot.backbones.loaders.open_clip_sources import find_open_clip, refuse_first, unsupported
from promptot.backbones.preprocess import CLIP_MEAN, CLIP_STD, Preprocess
from promptot.backbones.tokenizer import ClipTokenizer
from promptot.errors import PromptotError
from promptot.files.weights_file import read_state_dict


def load_open_clip(spec: str) -> Backbone:
    """Load `<arch>/<tag>`, `hf-hub:<owner>/<name>` or `local-dir:<dir>`.

    The first two are downloaded or taken from the cache, as open_clip does it. Activation and
    preprocessing are those of the weights, see `promptot.backbones.loaders.open_clip_sources`.

    Raises:
        PromptotError: unknown architecture or tag, weights that can't be had or would need code to
            be run, a warning of open_clip, or a kind of model that can't be prompted yet.
    """
    import open_clip
    from open_clip.transform import PreprocessCfg, merge_preprocess_dict

    with refuse_warnings("open_clip", f"open_clip:{spec}"):
        try:
            source = find_open_clip(spec)
            model = build_model(source.config)
            _check_supported(model.visual, getattr(model, "text", model), model)
            load_weights(model, read_state_dict(source.weights()))
        except PromptotError:
            raise
        except Exception as error:  # open_clip raises many kinds: network, files, configuration
            raise PromptotError(
                f"open_clip could not load '{spec}': {error}.",
                fix="Check the name, the network, or that the folder holds open_clip_config.json "
                "and the weights.",
            ) from error
        preprocess = merge_preprocess_dict(PreprocessCfg(), source.preprocess)
        open_clip.set_model_preprocess_cfg(model, preprocess)
        text = source.config["text_cfg"]
        tokenizer = open_clip.SimpleTokenizer(**text.get("tokenizer_kwargs") or {})
        return convert(model, tokenizer, f"open_clip:{spec}")


def build_model(config: Mapping[str, Any]) -> Any:
    """open_clip's CLIP of a configuration, its parameters without memory until weights come."""
    import open_clip

    arguments = deepcopy(dict(config))
    custom = arguments.pop("custom_text", False)
    kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.device("meta"):
        return kind(**arguments).eval()


def load_weights(model: Any, weights: Mapping[str, Tensor]) -> None:
    """Give an open_clip model its weights, with the conversions of open_clip's own loader."""
    from open_clip.model import (
        convert_to_custom_text_state_dict,
        resize_pos_embed,
        resize_text_pos_embed,
    )

    state = {key: value for key, value in weights.items() if key not in SIZES}
    if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    model.load_state_dict(state, strict=True, assign=True)


def convert(model: Any, tokenizer: Any, name: str) -> Backbone:
    """An open_clip model (its weights are shared, not copied) → a backbone.

    Raises:
        PromptotError: a kind of model that can't be prompted yet.
    """
    from open_clip import get_model_preprocess_cfg
    from open_clip.tokenizer import SimpleTokenizer

    text = getattr(model, "text", model)
    visual = model.visual
    _check_supported(visual, text, model)
    if not isinstance(tokenizer, SimpleTokenizer):
        raise unsupported(f"the tokenizer {type(tokenizer).__name__}")
    read_at = getattr(text, "eos_id", getattr(text, "text_eos_id", None))
    if _text_pool(text) == "eos" and read_at != tokenizer.eot_token_id:
        raise unsupported(f"a text tower that is read at the token {read_at}")

    weights = from_openai(model.state_dict())
    architecture = infer_architecture(
        weights,
        [
            _untold(visual.transformer, visual.ln_post),
            _untold(text.transformer, text.ln_final),
        ],
        pool={"tok": "class", "avg": "mean"}[visual.pool_type],
    )
    preprocess = read_preprocess(get_model_preprocess_cfg(model), visual.image_size[0])
    tokens = ClipTokenizer(tokenizer)
    return Backbone.from_weights(name, weights, architecture, tokens, preprocess)


def read_preprocess(config: Mapping[str, Any], size: int) -> Preprocess:
    """open_clip's description of its preprocessing as our `Preprocess`.

    Args:
        config: "mean", "std", "interpolation", "resize_mode" and "fill_color"; open_clip's own
            defaults stand for what is absent. Its size is not read: open_clip takes the tower's.
        size: side of the image tower's input.
    """
    known = {key: value for key, value in config.items() if value is not None}
    interpolation = known.get("interpolation", "bicubic")
    fill = known.get("fill_color", 0)
    if interpolation not in ("bicubic", "bilinear", "random") or not isinstance(fill, int):
        raise PromptotError(
            f"open_clip knows no interpolation '{interpolation}' with the fill '{fill}'.",
            fix="Correct the preprocess_cfg of its configuration.",
        )
    return Preprocess(
        size,
        _three(known.get("mean", CLIP_MEAN)),
        _three(known.get("std", CLIP_STD)),
        "bilinear" if interpolation == "bilinear" else "bicubic",
        resize_mode=known.get("resize_mode", "shortest"),
        fill=fill,
    )


def _three(values: Any) -> Any:
    """One value for all channels, or three."""
    return tuple(values) if isinstance(values, list | tuple) else (values,) * 3


def _untold(transformer: Any, norm: nn.LayerNorm) -> Untold:
    block = transformer.resblocks[0]
    activation = type(block.mlp.gelu).__name__
    known = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    if activation not in known or getattr(block.mlp.gelu, "approximate", "none") != "none":
        raise unsupported(f"the activation {block.mlp.gelu}")
    return Untold(block.attn.num_heads, known[activation], norm.eps)


def _text_pool(text: Any) -> str | None:
    return getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)


def _check_supported(visual: Any, text: Any, model: Any) -> None:
    refuse_first(_unsupported_parts(visual, text, model))


def _unsupported_parts(visual: Any, text: Any, model: Any) -> Iterator[tuple[bool, str]]:
    """Whether the model has a part, and which, in an order in which each can be asked."""
    image_kind, text_kind = type(visual).__name__, type(text).__name__
    yield image_kind == "ModifiedResNet", "a ResNet image tower"
    other = image_kind != "VisionTransformer"
    yield other, f"an image tower of the kind {image_kind} (as EVA, ConvNeXt)"
    yield getattr(model, "logit_bias", None) is not None, "a SigLIP model"
    yield text_kind not in ("TextTransformer", "CLIP"), f"a text tower of the kind {text_kind}"
    coca = hasattr(model, "text_decoder") or getattr(text, "cls_emb", None) is not None
    yield coca, "a CoCa model"
    unread = _text_pool(text) not in ("argmax", "eos") or text.attn_mask is None
    yield unread, "a text tower that is not causal or not read at its end token"
    pooled = visual.attn_pool is not None or visual.pool_type not in ("tok", "avg")
    yield pooled, "attention pooling"
    late_norm = visual.final_ln_after_pool and visual.pool_type == "avg"
    yield late_norm, "a norm after average pooling"
    yield visual.image_size[0] != visual.image_size[1], "images that are not square"
    for transformer in (visual.transformer, text.transformer):
        block = transformer.resblocks[0]
        usual = type(block.attn) is nn.MultiheadAttention and isinstance(block.ls_1, nn.Identity)
        yield not usual, "a custom attention block"
