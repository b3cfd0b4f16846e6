"""The shape of a CLIP, and building its towers from a shape and weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from promptot.backbones.towers.image_tower import ImageTower
from promptot.backbones.towers.stems import ConvStem, TrunkStem
from promptot.backbones.towers.text_tower import TextTower
from promptot.errors import PromptotError


@dataclass(frozen=True)
class TransformerShape:
    """Sizes of one tower's transformer."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    activation: str  # "quick_gelu" or "gelu"
    eps: float = 1e-5


@dataclass(frozen=True)
class ImageShape:
    """The image tower: its stem, then its transformer.

    Exactly one of `patch` (CLIP's convolution) and `trunk` (a timm model name) is set.
    """

    transformer: TransformerShape
    patches: int
    patch: int | None = None
    patch_bias: bool = False
    trunk: str | None = None
    pool: str = "class"  # or "mean"
    pre_norm: bool = True


@dataclass(frozen=True)
class TextShape:
    """The text tower."""

    transformer: TransformerShape
    vocabulary: int
    context_length: int
    projection_bias: bool = False


@dataclass(frozen=True)
class Architecture:
    """A CLIP's shape; every number of it is read from the weights or their configuration."""

    embed_dim: int
    image: ImageShape
    text: TextShape


def build_towers(
    architecture: Architecture, weights: Mapping[str, Tensor] | None = None
) -> tuple[ImageTower, TextTower]:
    """Both towers, with `weights` in fp32 if given (keys `image_tower.*` and `text_tower.*`).

    Raises:
        PromptotError: a weight is missing, unknown or of another shape.
    """
    image, text = architecture.image, architecture.text
    device = torch.device("cpu" if weights is None else "meta")
    with device:
        stem: nn.Module
        if image.trunk is not None:
            stem = TrunkStem(image.transformer.width, image.trunk)
        elif image.patch is not None:
            stem = ConvStem(image.transformer.width, image.patch, image.patch_bias)
        else:
            raise PromptotError(
                "The image tower has neither a patch size nor a trunk.",
                fix="Set `patch` or `trunk` in its configuration.",
            )
        shape = image.transformer
        image_tower = ImageTower(
            stem,
            patches=image.patches,
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            mlp_width=shape.mlp_width,
            embed_dim=architecture.embed_dim,
            activation=shape.activation,
            eps=shape.eps,
            pool=image.pool,
            pre_norm=image.pre_norm,
        )
        shape = text.transformer
        text_tower = TextTower(
            vocabulary=text.vocabulary,
            context_length=text.context_length,
            width=shape.width,
            layers=shape.layers,
            heads=shape.heads,
            mlp_width=shape.mlp_width,
            embed_dim=architecture.embed_dim,
            activation=shape.activation,
            eps=shape.eps,
            projection_bias=text.projection_bias,
        )
    if weights is not None:
        towers = nn.ModuleDict({"image_tower": image_tower, "text_tower": text_tower})
        _load(towers, weights)
    return image_tower, text_tower


def _load(towers: nn.Module, weights: Mapping[str, Tensor]) -> None:
    expected = towers.state_dict()
    missing = sorted(expected.keys() - weights.keys())
    unknown = sorted(weights.keys() - expected.keys())
    reshaped = sorted(
        key for key in expected.keys() & weights.keys() if expected[key].shape != weights[key].shape
    )
    problems = [
        f"{what}: {', '.join(keys[:3])}{' ...' if len(keys) > 3 else ''} ({len(keys)})"
        for what, keys in (
            ("missing", missing),
            ("unknown", unknown),
            ("of another shape", reshaped),
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
