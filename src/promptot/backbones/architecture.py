"""The shape of a CLIP, and reading it from weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from torch import Tensor


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

    To build one, exactly one of `patch` (CLIP's convolution) and `trunk` (a timm model name) is
    set; read from a tower with a trunk, neither is.
    """

    transformer: TransformerShape
    patches: int
    patch: int | None = None
    patch_bias: bool = False
    trunk: str | None = None
    pool: str = "class"  # or "mean", or "class_with_mean": see `ImageTower`
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


@dataclass(frozen=True)
class Untold:
    """What the tensors of a transformer don't tell."""

    heads: int
    activation: str  # "quick_gelu" or "gelu"
    eps: float = 1e-5


def infer_architecture(
    weights: Mapping[str, Tensor], untold: Sequence[Untold], pool: str = "class"
) -> Architecture:
    """The architecture that weights (keys `image_tower.*` and `text_tower.*`) are of.

    Args:
        untold: what the tensors of the image tower and of the text tower don't tell.
        pool: where the image feature is read, see `ImageTower`.
    """
    image, text = untold
    kernel = weights.get("image_tower.stem.conv1.weight")
    return Architecture(
        embed_dim=weights["image_tower.proj"].shape[1],
        image=ImageShape(
            _infer_transformer(weights, "image_tower", image),
            patches=len(weights["image_tower.positional_embedding"]) - 1,
            patch=None if kernel is None else kernel.shape[-1],
            patch_bias="image_tower.stem.conv1.bias" in weights,
            pool=pool,
            pre_norm="image_tower.ln_pre.weight" in weights,
        ),
        text=TextShape(
            _infer_transformer(weights, "text_tower", text),
            vocabulary=len(weights["text_tower.token_embedding.weight"]),
            context_length=len(weights["text_tower.positional_embedding"]),
            projection_bias="text_tower.projection_bias" in weights,
        ),
    )


def _infer_transformer(
    weights: Mapping[str, Tensor], tower: str, untold: Untold
) -> TransformerShape:
    prefix = f"{tower}.transformer.resblocks."
    numbers = [key.removeprefix(prefix).split(".")[0] for key in weights if key.startswith(prefix)]
    return TransformerShape(
        width=weights[f"{tower}.positional_embedding"].shape[-1],
        layers=1 + max(map(int, numbers)),
        mlp_width=len(weights[f"{prefix}0.mlp.c_fc.weight"]),
        **asdict(untold),
    )
