"""The one place where towers are built: of an architecture, with or without weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import Architecture, Untold, infer_architecture
from promptot.backbones.encoders import ImageEncoder, TextEncoder
from promptot.backbones.towers.image_tower import ImageTower
from promptot.backbones.towers.stems import ConvStem, TrunkStem
from promptot.backbones.towers.text_tower import TextTower
from promptot.backbones.towers.transformer import Transformer
from promptot.errors import PromptotError


def architecture_of(image_tower: ImageEncoder, text_tower: TextEncoder) -> Architecture:
    """The architecture of two towers as they are now.

    Raises:
        PromptotError: they are of another kind than `build_towers` makes.
    """
    if not (isinstance(image_tower, ImageTower) and isinstance(text_tower, TextTower)):
        raise PromptotError(
            "This backbone's encoders are no Vision Transformer and causal text transformer.",
            fix="Use one of CLIP's architecture, such as 'open_clip:ViT-B-16/openai'.",
        )
    towers = nn.ModuleDict({"image_tower": image_tower, "text_tower": text_tower})
    untold = [_untold(tower.transformer) for tower in (image_tower, text_tower)]
    return infer_architecture(towers.state_dict(), untold, image_tower.pool)


def _untold(transformer: Transformer) -> Untold:
    block = transformer.blocks[0]
    activation = "quick_gelu" if block.mlp.quick else "gelu"
    return Untold(block.attn.heads, activation, block.ln_1.eps)


def build_towers(
    architecture: Architecture, weights: Mapping[str, Tensor] | None = None
) -> tuple[ImageTower, TextTower]:
    """Both towers, with `weights` in fp32 if given (keys `image_tower.*` and `text_tower.*`).

    Raises:
        PromptotError: a weight is missing, unknown or of another shape.
    """
    image, width = architecture.image, architecture.image.transformer.width
    stem: nn.Module
    with torch.device("cpu" if weights is None else "meta"):
        if image.trunk is not None:
            stem = TrunkStem(width, image.trunk)
        elif image.patch is not None:
            stem = ConvStem(width, image.patch, image.patch_bias)
        else:
            raise PromptotError(
                "The image tower has neither a patch size nor a trunk.",
                fix="Set `patch` or `trunk` in its configuration.",
            )
        image_tower = ImageTower(stem, image, architecture.embed_dim)
        text_tower = TextTower(architecture.text, architecture.embed_dim)
    if weights is not None:
        _load(nn.ModuleDict({"image_tower": image_tower, "text_tower": text_tower}), weights)
    return image_tower, text_tower


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
