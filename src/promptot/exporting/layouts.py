"""A backbone's weights in the layouts of open_clip and of transformers, with their configurations.

The inverse of what the loaders in `promptot.backbones` do.
"""

from __future__ import annotations

import warnings
from typing import Any

from torch import Tensor, nn

from promptot.backbones.backbone import Backbone
from promptot.backbones.loaders.transformers_models import BLOCK_MODULES, MODULES, TENSORS, TOWERS
from promptot.backbones.preprocess import INTERPOLATIONS, Preprocess
from promptot.backbones.towers.stems import ConvStem
from promptot.backbones.towers.transformer import Transformer
from promptot.errors import PromptotError, PromptotWarning

DEFAULT_EPS = 1e-5


def open_clip_config(backbone: Backbone) -> dict[str, Any]:
    """What goes into open_clip_config.json.

    Raises:
        PromptotError: open_clip's CLIP can't be given this backbone's shape.
    """
    image, text = backbone.image_tower, backbone.text_tower
    stem = _conv_stem(backbone, "open_clip")
    quick = {_block(tower.transformer).mlp.quick for tower in (image, text)}
    if len(quick) > 1:
        raise _does_not_fit("open_clip", "two towers with different activations")
    if stem.conv1.bias is not None:
        raise _does_not_fit("open_clip", "a bias in its patch embedding")
    vision_cfg = {
        "image_size": backbone.preprocess.resolution,
        "patch_size": stem.conv1.kernel_size[0],
        "head_width": image.width // _block(image.transformer).attn.heads,
        **_open_clip_transformer(image.transformer, image.width),
        "pool_type": {"class": "tok", "mean": "avg"}[image.pool],
        "no_ln_pre": not isinstance(image.ln_pre, nn.LayerNorm),
    }
    text_cfg = {
        "context_length": text.context_length,
        "vocab_size": text.token_embedding.num_embeddings,
        "heads": _block(text.transformer).attn.heads,
        **_open_clip_transformer(text.transformer, text.width),
        "proj_bias": text.projection_bias is not None,
    }
    return {
        "model_cfg": {
            "embed_dim": backbone.embed_dim,
            "quick_gelu": quick.pop(),
            "vision_cfg": vision_cfg,
            "text_cfg": text_cfg,
        },
        "preprocess_cfg": _open_clip_preprocess(backbone.preprocess),
    }


def _open_clip_preprocess(preprocess: Preprocess) -> dict[str, Any]:
    for unfit, what in (
        (preprocess.resize_mode == "none", "images that are not resized"),
        (preprocess.resized_to != preprocess.resolution, "images that are cut after resizing"),
        (preprocess.interpolation not in ("bicubic", "bilinear"), "another interpolation"),
    ):
        if unfit:
            raise _does_not_fit("open_clip", what)
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
    for unfit, what in (
        (preprocess.resize_mode == "longest", "images whose longer side is resized"),
        (preprocess.fill != 0, "borders that are not black"),
    ):
        if unfit:
            raise _does_not_fit("transformers", what)
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


def open_clip_weights(backbone: Backbone) -> dict[str, Tensor]:
    """The state dict of open_clip's CLIP."""
    weights = {"logit_scale": backbone.logit_scale.log()}
    for key, value in backbone.image_tower.state_dict().items():
        weights[f"visual.{key.removeprefix('stem.')}"] = value
    text = backbone.text_tower.state_dict()
    if "projection_bias" in text:
        weights["text_projection.bias"] = text.pop("projection_bias")
        weights["text_projection.weight"] = text.pop("text_projection").T
    return _contiguous(weights | text)


def clip_config(backbone: Backbone) -> dict[str, Any]:
    """The arguments of transformers' CLIPConfig.

    Raises:
        PromptotError: transformers' CLIPModel can't be given this backbone's shape.
    """
    image, text = backbone.image_tower, backbone.text_tower
    stem = _conv_stem(backbone, "transformers")
    for unfit, what in (
        (stem.conv1.bias is not None, "a bias in its patch embedding"),
        (image.pool != "class", "an image feature that is the mean of the patches"),
        (not isinstance(image.ln_pre, nn.LayerNorm), "no norm before the first block"),
        (text.projection_bias is not None, "a bias in its text projection"),
    ):
        if unfit:
            raise _does_not_fit("transformers", what)
    ends = backbone.tokenizer.encode("")
    return {
        "projection_dim": backbone.embed_dim,
        "vision_config": {
            "image_size": backbone.preprocess.resolution,
            "patch_size": stem.conv1.kernel_size[0],
            "projection_dim": backbone.embed_dim,
            **_clip_transformer(image.transformer, image.width),
        },
        "text_config": {
            "vocab_size": text.token_embedding.num_embeddings,
            "max_position_embeddings": text.context_length,
            "projection_dim": backbone.embed_dim,
            "bos_token_id": ends[0],
            "eos_token_id": ends[-1],
            "pad_token_id": ends[-1],
            **_clip_transformer(text.transformer, text.width),
        },
    }


def clip_weights(backbone: Backbone) -> dict[str, Tensor]:
    """The state dict of transformers' CLIPModel."""
    image, text = backbone.image_tower, backbone.text_tower
    weights = {
        "logit_scale": backbone.logit_scale.log(),
        "visual_projection.weight": image.proj.detach().T,
        "text_projection.weight": text.text_projection.detach().T,
    }
    models = {tower: model for model, tower in TOWERS.items()}
    tensors = {ours: theirs for theirs, ours in TENSORS.items()}
    modules = {ours: theirs for theirs, ours in MODULES.items()}
    block_modules = {ours: theirs for theirs, ours in BLOCK_MODULES.items()}
    for name, tower in (("image_tower", image), ("text_tower", text)):
        model = models[name]
        for key, value in tower.state_dict().items():
            if key in ("proj", "text_projection"):
                continue
            if key in tensors:
                weights[f"{model}.{tensors[key]}"] = value
            elif key.startswith("transformer.resblocks."):
                _, _, index, rest = key.split(".", 3)
                layer = f"{model}.encoder.layers.{index}"
                module, _, kind = rest.rpartition(".")
                if rest.startswith("attn.in_proj_"):
                    kind = rest.removeprefix("attn.in_proj_")
                    for part, rows in zip("qkv", value.chunk(3), strict=True):
                        weights[f"{layer}.self_attn.{part}_proj.{kind}"] = rows
                else:
                    weights[f"{layer}.{block_modules[module]}.{kind}"] = value
            else:
                module, _, kind = key.rpartition(".")
                weights[f"{model}.{modules[module]}.{kind}"] = value
    return _contiguous(weights)


def _conv_stem(backbone: Backbone, library: str) -> ConvStem:
    stem = backbone.image_tower.stem
    if not isinstance(stem, ConvStem):
        raise _does_not_fit(library, "a convolutional network before its first block")
    return stem


def _open_clip_transformer(transformer: Transformer, width: int) -> dict[str, Any]:
    block = _block(transformer)
    eps = block.ln_1.eps
    return {
        "width": width,
        "layers": len(transformer.blocks),
        "mlp_ratio": block.mlp.c_fc.out_features / width,
        **({} if eps == DEFAULT_EPS else {"norm_kwargs": {"eps": eps}}),
    }


def _clip_transformer(transformer: Transformer, width: int) -> dict[str, Any]:
    block = _block(transformer)
    return {
        "hidden_size": width,
        "num_hidden_layers": len(transformer.blocks),
        "num_attention_heads": block.attn.heads,
        "intermediate_size": block.mlp.c_fc.out_features,
        "hidden_act": "quick_gelu" if block.mlp.quick else "gelu",
        "layer_norm_eps": block.ln_1.eps,
    }


def _block(transformer: Transformer) -> Any:
    return transformer.blocks[0]


def _contiguous(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of their own, as files need them."""
    return {key: value.detach().cpu().contiguous().clone() for key, value in weights.items()}


def _does_not_fit(library: str, what: str) -> PromptotError:
    return PromptotError(
        f"This backbone has {what}, for which the CLIP of {library} has no place.",
        fix="Export it with --format onnx or torchscript.",
    )
