"""Architectures of transformers' models: of their configuration, and of weights under our names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    PaddedTextShape,
    PoolShape,
    TransformerShape,
    Untold,
    infer_architecture,
)
from promptot.backbones.tokenizer import Tokenizer
from promptot.errors import PromptotError

_ACTIVATIONS = {"quick_gelu": "quick_gelu", "gelu": "gelu", "gelu_pytorch_tanh": "gelu_tanh"}


def clip_architecture(
    config: Any, weights: Mapping[str, Tensor], tokenizer: Tokenizer
) -> Architecture:
    """Of a CLIPModel or a MetaClip2Model.

    Raises:
        PromptotError: an activation that is not known here.
    """
    towers = config.vision_config, config.text_config
    untold = [Untold(own.num_attention_heads, _activation(own), own.layer_norm_eps)
              for own in towers]  # fmt: skip
    return infer_architecture(weights, untold)


def siglip_architecture(
    config: Any, weights: Mapping[str, Tensor], tokenizer: Tokenizer
) -> Architecture:
    """Of a SiglipModel, whose text tower reads the last of all positions, mostly padding.

    Args:
        tokenizer: says what texts are filled up with: the configuration of SigLIP 2 does not.

    Raises:
        PromptotError: an activation that is not known here.
    """
    vision, text = config.vision_config, config.text_config
    image, width = _transformer(vision), vision.hidden_size
    pool = PoolShape(
        width, image.heads, width, image.mlp_width, activation=image.activation, eps=image.eps
    )
    return Architecture(
        width,
        ImageShape(
            image,
            patches=len(weights["image_tower.positional_embedding"]),
            patch=weights["image_tower.stem.conv1.weight"].shape[-1],
            patch_bias=True,
            pool="attention",
            pre_norm=False,
            class_token=False,
            projection=False,
            attention_pool=pool,
        ),
        PaddedTextShape(
            _transformer(text),
            vocabulary=text.vocab_size,
            context_length=text.max_position_embeddings,
            pad=tokenizer.pad,
            starts=0,
            pool="last",
            head_bias=True,
        ),
    )


def check_images(config: Any) -> None:
    """Refuse by its configuration an image tower that gives no features or reads no squares.

    Raises:
        PromptotError: it has no head, or its images or patches are not square.
    """
    vision = config.vision_config
    if not getattr(vision, "vision_use_head", True):
        raise PromptotError(
            "The image tower of this SigLIP has no head, so it gives no features.",
            fix="Use a whole SiglipModel, such as 'hf:google/siglip-base-patch16-224'.",
        )
    for size in (vision.image_size, vision.patch_size):
        if isinstance(size, list | tuple) and len(set(size)) > 1:
            raise PromptotError(
                "A model whose images or patches are not square is not supported.",
                fix="Use another one, such as 'hf:openai/clip-vit-base-patch16'.",
            )


def image_side(config: Any) -> int:
    """Side in pixels of the images that a model takes."""
    size = config.vision_config.image_size
    return int(size[0] if isinstance(size, list | tuple) else size)


def _transformer(config: Any) -> TransformerShape:
    return TransformerShape(
        config.hidden_size,
        config.num_hidden_layers,
        config.num_attention_heads,
        config.intermediate_size,
        _activation(config),
        config.layer_norm_eps,
    )


def _activation(config: Any) -> str:
    if config.hidden_act not in _ACTIVATIONS:
        raise PromptotError(
            f"The activation '{config.hidden_act}' is not supported yet.",
            fix=f"Use a model with one of: {', '.join(_ACTIVATIONS)}.",
        )
    return _ACTIVATIONS[config.hidden_act]
