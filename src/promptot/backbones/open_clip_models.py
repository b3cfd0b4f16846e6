"""Weights from open_clip: pretrained tags and local folders."""

from __future__ import annotations

import difflib
from typing import Any

from torch import nn

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    TextShape,
    TransformerShape,
    build_towers,
)
from promptot.backbones.backbone import Backbone
from promptot.backbones.openai_layout import rename
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import ClipTokenizer
from promptot.errors import PromptotError, nearest


def load_open_clip(spec: str) -> Backbone:
    """Load `<arch>/<tag>` (downloaded or cached by open_clip) or `local-dir:<dir>`.

    Raises:
        PromptotError: unknown architecture or tag, weights that can't be had, or a kind of
            model that can't be prompted yet.
    """
    import open_clip

    if spec.startswith("local-dir:"):
        model_name, tag = spec, None
    else:
        model_name, _, tag = spec.rpartition("/")
        _check_known(model_name, tag)
    try:
        model = open_clip.create_model(model_name, pretrained=tag, precision="fp32")
        tokenizer = open_clip.get_tokenizer(model_name)
    except PromptotError:
        raise
    except Exception as error:  # open_clip raises many kinds: network, files, configuration
        raise PromptotError(
            f"open_clip could not load '{spec}': {error}.",
            fix="Check the name, the network, or that the folder holds open_clip_config.json "
            "and the weights.",
        ) from error
    return convert(model, tokenizer, f"open_clip:{spec}")


def _check_known(model_name: str, tag: str) -> None:
    import open_clip

    if model_name not in open_clip.list_models():
        close = difflib.get_close_matches(model_name, open_clip.list_models(), n=3)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise PromptotError(
            f"open_clip knows no architecture '{model_name}'.",
            fix=f"Write 'open_clip:<arch>/<tag>', such as 'open_clip:ViT-B-16/openai'.{hint}",
        )
    config = open_clip.get_model_config(model_name)
    vision, text = config["vision_cfg"], config["text_cfg"]
    if isinstance(vision.get("layers"), list):
        raise _unsupported("a ResNet image tower")
    if "init_logit_bias" in config:
        raise _unsupported("a SigLIP objective")
    if "timm_model_name" in vision:
        raise _unsupported(f"the image tower {vision['timm_model_name']} (as EVA, ConvNeXt)")
    if "hf_model_name" in text or "multimodal_cfg" in config:
        raise _unsupported("a text tower of another kind (as CoCa, RoBERTa)")
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if tag not in tags:
        raise PromptotError(
            f"open_clip has no weights '{tag}' for {model_name}.", fix=nearest(tag, tags)
        )


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
        raise _unsupported(f"the tokenizer {type(tokenizer).__name__}")

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
    config = get_model_preprocess_cfg(model)
    size = config.get("size", visual.image_size)
    return Backbone(
        name,
        image_tower,
        text_tower,
        model.logit_scale.detach().float().exp().reshape(()),
        ClipTokenizer(tokenizer),
        Preprocess(
            size if isinstance(size, int) else size[0],
            tuple(config["mean"]),
            tuple(config["std"]),
            config.get("interpolation", "bicubic"),
        ),
    )


def _transformer_shape(transformer: Any, norm: nn.LayerNorm) -> TransformerShape:
    block = transformer.resblocks[0]
    activation = type(block.mlp.gelu).__name__
    known = {"QuickGELU": "quick_gelu", "GELU": "gelu"}
    if activation not in known or getattr(block.mlp.gelu, "approximate", "none") != "none":
        raise _unsupported(f"the activation {block.mlp.gelu}")
    return TransformerShape(
        width=block.ln_1.normalized_shape[0],
        layers=len(transformer.resblocks),
        heads=block.attn.num_heads,
        mlp_width=block.mlp.c_fc.out_features,
        activation=known[activation],
        eps=norm.eps,
    )


def _check_supported(visual: Any, text: Any, model: Any) -> None:
    if type(visual).__name__ == "ModifiedResNet":
        raise _unsupported("a ResNet image tower")
    if type(visual).__name__ != "VisionTransformer":
        raise _unsupported(f"an image tower of the kind {type(visual).__name__} (as EVA, ConvNeXt)")
    if getattr(model, "logit_bias", None) is not None:
        raise _unsupported("a SigLIP model")
    if type(text).__name__ not in ("TextTransformer", "CLIP"):
        raise _unsupported(f"a text tower of the kind {type(text).__name__}")
    if hasattr(model, "text_decoder") or getattr(text, "cls_emb", None) is not None:
        raise _unsupported("a CoCa model")
    pool = getattr(text, "pool_type", None) or getattr(text, "text_pool_type", None)
    if pool not in ("argmax", "eos") or text.attn_mask is None:
        raise _unsupported("a text tower that is not causal or not read at its end token")
    if visual.attn_pool is not None or visual.pool_type not in ("tok", "avg"):
        raise _unsupported("attention pooling")
    if visual.final_ln_after_pool and visual.pool_type == "avg":
        raise _unsupported("a norm after average pooling")
    if visual.image_size[0] != visual.image_size[1]:
        raise _unsupported("images that are not square")
    for transformer in (visual.transformer, text.transformer):
        block = transformer.resblocks[0]
        if type(block.attn) is not nn.MultiheadAttention or not isinstance(block.ls_1, nn.Identity):
            raise _unsupported("a custom attention block")


def _unsupported(what: str) -> PromptotError:
    return PromptotError(
        f"This open_clip model has {what}, which is not supported yet.",
        fix="Use a Vision-Transformer CLIP such as 'open_clip:ViT-B-16/openai'.",
    )
