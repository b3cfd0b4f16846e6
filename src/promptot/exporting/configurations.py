"""A backbone as open_clip and transformers describe it: their configurations, and its weights.

The inverse of what the loaders in `promptot.backbones` do.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    PaddedTextShape,
    TextShape,
    TransformerShape,
)
from promptot.backbones.backbone import Backbone
from promptot.backbones.preprocess import INTERPOLATIONS, Preprocess
from promptot.errors import PromptotError, PromptotWarning

DEFAULT_EPS = 1e-5
_TRUNK = "a convolutional network before its first block"
_SEEDED = "a class token that begins with the mean of the patches"
_BIAS = "a bias in its patch embedding"


def open_clip_config(backbone: Backbone) -> dict[str, Any]:
    """What goes into open_clip_config.json.

    Raises:
        PromptotError: open_clip's CLIP can't be given this backbone's shape.
    """
    shape = backbone.architecture()
    image, text = _plain(shape, "open_clip")
    quick = image.transformer.activation == "quick_gelu"
    bias = backbone.logit_bias
    _refuse(
        "open_clip",
        {
            _TRUNK: image.patch is None,
            "two towers with different activations": (
                image.transformer.activation != text.transformer.activation
            ),
            _BIAS: image.patch_bias,
            _SEEDED: image.pool == "class_with_mean",
        },
    )
    vision_cfg = {
        "image_size": backbone.preprocess.resolution,
        "patch_size": image.patch,
        "head_width": image.transformer.width // image.transformer.heads,
        **_open_clip_transformer(image.transformer),
        "pool_type": "avg" if image.pool == "mean" else "tok",
        "no_ln_pre": not image.pre_norm,
    }
    text_cfg = {
        "context_length": text.context_length,
        "vocab_size": text.vocabulary,
        "heads": text.transformer.heads,
        **_open_clip_transformer(text.transformer),
        "proj_bias": text.projection_bias,
    }
    return {
        "model_cfg": {
            "embed_dim": shape.embed_dim,
            "quick_gelu": quick,
            "vision_cfg": vision_cfg,
            "text_cfg": text_cfg,
            **({} if bias is None else {"init_logit_bias": float(bias)}),
        },
        "preprocess_cfg": _open_clip_preprocess(backbone.preprocess),
    }


def _open_clip_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    _refuse(
        "open_clip",
        {
            "images that are not resized": preprocess.resize_mode == "none",
            "images that are cut after resizing": preprocess.resized_to != preprocess.resolution,
            "another interpolation": preprocess.interpolation not in ("bicubic", "bilinear"),
        },
    )
    return {
        "size": preprocess.resolution,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "interpolation": preprocess.interpolation,
        "resize_mode": preprocess.resize_mode,
        "fill_color": preprocess.fill,
    }


def clip_image_processor(preprocess: Preprocess) -> dict[str, Any]:
    """The arguments of transformers' CLIPImageProcessor.

    It begins a cut that can't be centred at the pixel before, see `Preprocess.crop_rounding`,
    whatever is asked for.

    Warns:
        PromptotWarning: the backbone cuts such images otherwise.

    Raises:
        PromptotError: transformers' CLIPImageProcessor can't read images like that.
    """
    _refuse(
        "transformers",
        {
            "images whose longer side is resized": preprocess.resize_mode == "longest",
            "borders that are not black": preprocess.fill != 0,
        },
    )
    side, resized = preprocess.resolution, preprocess.resized_to
    squash = preprocess.resize_mode == "squash"
    if preprocess.crop_rounding != "down" and not squash:
        warnings.warn(
            "transformers' image processor begins to cut an image that can't be cut evenly one "
            "pixel earlier than this backbone: such images give slightly other probabilities "
            "there. The formats onnx, torchscript and open_clip cut as the backbone does.",
            PromptotWarning,
            stacklevel=2,
        )
    return {
        "do_resize": preprocess.resize_mode != "none",
        "size": {"height": resized, "width": resized} if squash else {"shortest_edge": resized},
        "do_center_crop": not (squash and resized == side),
        "crop_size": {"height": side, "width": side},
        "resample": int(INTERPOLATIONS[preprocess.interpolation]),
        "image_mean": list(preprocess.mean),
        "image_std": list(preprocess.std),
    }


def clip_config(backbone: Backbone) -> dict[str, Any]:
    """The arguments of transformers' CLIPConfig.

    Raises:
        PromptotError: transformers' CLIPModel can't be given this backbone's shape.
    """
    shape = backbone.architecture()
    image, text = _plain(shape, "transformers")
    _refuse(
        "transformers",
        {
            _TRUNK: image.patch is None,
            _BIAS: image.patch_bias,
            "an image feature that is the mean of the patches": image.pool == "mean",
            _SEEDED: image.pool == "class_with_mean",
            "no norm before the first block": not image.pre_norm,
            "a bias in its text projection": text.projection_bias,
        },
    )
    ends = backbone.tokenizer.encode("")
    return {
        "projection_dim": shape.embed_dim,
        "vision_config": {
            "image_size": backbone.preprocess.resolution,
            "patch_size": image.patch,
            "projection_dim": shape.embed_dim,
            **_clip_transformer(image.transformer),
        },
        "text_config": {
            "vocab_size": text.vocabulary,
            "max_position_embeddings": text.context_length,
            "projection_dim": shape.embed_dim,
            "bos_token_id": ends[0],
            "eos_token_id": ends[-1],
            "pad_token_id": ends[-1],
            **_clip_transformer(text.transformer),
        },
    }


def weights_for(
    layout: Callable[[Mapping[str, Tensor]], dict[str, Tensor]], backbone: Backbone
) -> dict[str, Tensor]:
    """A backbone's weights in a layout of `promptot.backbones.layouts`, as tensors of their own."""
    weights = layout(backbone.state_dict())
    return {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}


def _plain(shape: Architecture, library: str) -> tuple[ImageShape, TextShape]:
    """Both towers of a CLIP whose parts are those of CLIP's first models."""
    image, text = shape.image, shape.text
    kinds = (image.transformer, text.transformer)
    plain_blocks = all(
        kind.norms == "before"
        and kind.activation in ("gelu", "quick_gelu")
        and not (kind.gated or kind.attention_norm or kind.mlp_norm)
        for kind in kinds
    )
    pools = ("class", "mean", "class_with_mean")
    _refuse(
        library,
        {
            "a text tower that reads its padding": isinstance(text, PaddedTextShape),
            "an image feature that is pooled in another way": image.pool not in pools,
            "no class token": not image.class_token,
            "rotated positions": image.rotary,
            "blocks of another kind": not plain_blocks,
            "another projection": not image.projection
            or image.projection_bias
            or not image.final_norm,
        },
    )
    assert isinstance(text, TextShape)
    _refuse(library, {"no text projection": not text.projection})
    return image, text


def _open_clip_transformer(shape: TransformerShape) -> dict[str, Any]:
    return {
        "width": shape.width,
        "layers": shape.layers,
        "mlp_ratio": shape.mlp_width / shape.width,
        **({} if shape.eps == DEFAULT_EPS else {"norm_kwargs": {"eps": shape.eps}}),
    }


def _clip_transformer(shape: TransformerShape) -> dict[str, Any]:
    return {
        "hidden_size": shape.width,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "intermediate_size": shape.mlp_width,
        "hidden_act": shape.activation,
        "layer_norm_eps": shape.eps,
    }


def _refuse(library: str, unfit: Mapping[str, bool]) -> None:
    """Refuse what a library's CLIP has no place for, the first of these that is so."""
    for what, so in unfit.items():
        if so:
            raise PromptotError(
                f"This backbone has {what}, for which the CLIP of {library} has no place.",
                fix="Export it with --format onnx or torchscript.",
            )
