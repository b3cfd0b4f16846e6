"""Weights from open_clip: pretrained tags, the Hub and local folders."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    TextShape,
    TransformerShape,
    build_towers,
)
from promptot.backbones.backbone import Backbone
from promptot.backbones.library_warnings import refuse_warnings
from promptot.backbones.loaders.open_clip_sources import find_open_clip, unsupported
from promptot.backbones.loaders.openai_layout import SIZES, rename
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

    projection = text.text_projection
    weights = dict(model.state_dict())
    biased = isinstance(projection, nn.Linear) and projection.bias is not None
    if isinstance(projection, nn.Linear):
        prefix = "text." if text is not model else ""
        weights[f"{prefix}text_projection"] = weights.pop(f"{prefix}text_projection.weight").T
        if biased:
            weights[f"{prefix}projection_bias"] = weights.pop(f"{prefix}text_projection.bias")

    architecture = Architecture(
        embed_dim=visual.proj.shape[1],
        image=ImageShape(
            _transformer_shape(visual.transformer, visual.ln_post),
            patches=len(visual.positional_embedding) - 1,
            patch=visual.conv1.kernel_size[0],
            patch_bias=visual.conv1.bias is not None,
            pool={"tok": "class", "avg": "mean"}[visual.pool_type],
            pre_norm=isinstance(visual.ln_pre, nn.LayerNorm),
        ),
        text=TextShape(
            _transformer_shape(text.transformer, text.ln_final),
            vocabulary=len(text.token_embedding.weight),
            context_length=len(text.positional_embedding),
            projection_bias=biased,
        ),
    )
    image_tower, text_tower = build_towers(architecture, rename(weights))
    return Backbone(
        name,
        image_tower,
        text_tower,
        model.logit_scale.detach().float().exp().reshape(()),
        ClipTokenizer(tokenizer),
        read_preprocess(get_model_preprocess_cfg(model), visual.image_size[0]),
    )


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


def _transformer_shape(transformer: Any, norm: nn.LayerNorm) -> TransformerShape:
    block = transformer.resblocks[0]
    activation = type(block.mlp.gelu).__name__
    known = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    if activation not in known or getattr(block.mlp.gelu, "approximate", "none") != "none":
        raise unsupported(f"the activation {block.mlp.gelu}")
    return TransformerShape(
        width=block.ln_1.normalized_shape[0],
        layers=len(transformer.resblocks),
        heads=block.attn.num_heads,
        mlp_width=block.mlp.c_fc.out_features,
        activation=known[activation],
        eps=norm.eps,
    )


def _text_pool(text: Any) -> str | None:
    return getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)


def _check_supported(visual: Any, text: Any, model: Any) -> None:
    if type(visual).__name__ == "ModifiedResNet":
        raise unsupported("a ResNet image tower")
    if type(visual).__name__ != "VisionTransformer":
        raise unsupported(f"an image tower of the kind {type(visual).__name__} (as EVA, ConvNeXt)")
    if getattr(model, "logit_bias", None) is not None:
        raise unsupported("a SigLIP model")
    if type(text).__name__ not in ("TextTransformer", "CLIP"):
        raise unsupported(f"a text tower of the kind {type(text).__name__}")
    if hasattr(model, "text_decoder") or getattr(text, "cls_emb", None) is not None:
        raise unsupported("a CoCa model")
    if _text_pool(text) not in ("argmax", "eos") or text.attn_mask is None:
        raise unsupported("a text tower that is not causal or not read at its end token")
    if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
        raise unsupported("attention pooling")
    if visual.final_ln_after_pool and visual.pool_type == "avg":
        raise unsupported("a norm after average pooling")
    if visual.image_size[0] != visual.image_size[1]:
        raise unsupported("images that are not square")
    for transformer in (visual.transformer, text.transformer):
        block = transformer.resblocks[0]
        if type(block.attn) is not nn.MultiheadAttention or not isinstance(block.ls_1, nn.Identity):
            raise unsupported("a custom attention block")
