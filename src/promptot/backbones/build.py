"""The one place where towers are built: of an architecture, with or without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import (
    Architecture,
    PaddedTextShape,
    TextShape,
    TransformerShape,
)
from promptot.backbones.encoders import ImageEncoder, TextEncoder
from promptot.backbones.towers.image_tower import ImageTower
from promptot.backbones.towers.padded_text_tower import PaddedTextTower
from promptot.backbones.towers.stems import ConvStem, TrunkStem
from promptot.backbones.towers.text_tower import TextTower
from promptot.backbones.towers.transformer import Transformer
from promptot.errors import PromptotError


def architecture_of(image_tower: ImageEncoder, text_tower: TextEncoder) -> Architecture:
    """The architecture of two towers as they are now.

    Raises:
        PromptotError: they are of another kind than `build_towers` makes.
    """
    if not isinstance(image_tower, ImageTower) or not isinstance(
        text_tower, TextTower | PaddedTextTower
    ):
        raise PromptotError(
            "This backbone's image encoder is no Vision Transformer.",
            fix="Use one that is, such as 'open_clip:ViT-B-16/openai'. To export a run in it, use "
            "--format onnx or torchscript.",
        )
    image = image_tower.shape
    image = replace(image, transformer=_as_it_is(image.transformer, image_tower.transformer))
    own = _as_it_is(text_tower.shape.transformer, text_tower.transformer)
    text = replace(text_tower.shape, transformer=own)
    return Architecture(image_tower.embed_dim, image, text)


def _as_it_is(shape: TransformerShape, transformer: Transformer) -> TransformerShape:
    block = transformer.blocks[0]
    return replace(
        shape, heads=block.attn.heads, activation=block.mlp.activation, eps=block.ln_1.eps
    )


def build_towers(
    architecture: Architecture,
    weights: Mapping[str, Tensor] | None = None,
    stem: nn.Module | None = None,
) -> tuple[ImageTower, TextTower | PaddedTextTower]:
    """Both towers, with `weights` in fp32 if given (keys `image_tower.*` and `text_tower.*`).

    Args:
        stem: the image tower's, where the architecture names none.

    Raises:
        PromptotError: a weight is missing, unknown or of another shape.
    """
    with torch.device("cpu" if weights is None else "meta"):
        image_tower = _image_tower(architecture, stem)
        text_tower = _text_tower(architecture.text, architecture.embed_dim)
    if weights is not None:
        _load(nn.ModuleDict({"image_tower": image_tower, "text_tower": text_tower}), weights)
    return image_tower, text_tower


def build_text_tower(
    shape: TextShape | PaddedTextShape, embed_dim: int, weights: Mapping[str, Tensor]
) -> TextTower | PaddedTextTower:
    """A text tower alone, with its weights (keys `text_tower.*`) in fp32; raises as above."""
    with torch.device("meta"):
        tower = _text_tower(shape, embed_dim)
    _load(nn.ModuleDict({"text_tower": tower}), weights)
    return tower


def _image_tower(architecture: Architecture, stem: nn.Module | None) -> ImageTower:
    image, width = architecture.image, architecture.image.transformer.width
    if stem is None and image.trunk is not None:
        stem = TrunkStem(width, image.trunk)
    elif stem is None and image.patch is not None:
        stem = ConvStem(width, image.patch, image.patch_bias)
    if stem is None:
        raise PromptotError(
            "The image tower has neither a patch size nor a trunk.",
            fix="Set `patch` or `trunk` in its configuration.",
        )
    return ImageTower(stem, image, architecture.embed_dim)


def _text_tower(shape: TextShape | PaddedTextShape, embed_dim: int) -> TextTower | PaddedTextTower:
    if isinstance(shape, PaddedTextShape):
        return PaddedTextTower(shape, embed_dim)
    return TextTower(shape, embed_dim)


def _load(towers: nn.Module, weights: Mapping[str, Tensor]) -> None:
    expected = towers.state_dict()
    both = expected.keys() & weights.keys()
    problems = [
        f"{what}: {', '.join(sorted(keys)[:3])}{' ...' if len(keys) > 3 else ''} ({len(keys)})"
        for what, keys in (
            ("missing", expected.keys() - both),
            ("unknown", weights.keys() - both),
            ("of another shape", {k for k in both if expected[k].shape != weights[k].shape}),
        )
        if keys
    ]
    if problems:
        raise PromptotError(
            f"The weights don't fit the architecture; {'; '.join(problems)}.",
            fix="Check that the file is complete and that its configuration is its own.",
        )
    floats = {
        key: value.to(torch.float32) if value.is_floating_point() else value
        for key, value in weights.items()
    }
    towers.load_state_dict(floats, assign=True)
