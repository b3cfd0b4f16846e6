"""One way to compute a CLIP, and what is told of it, in words that are the same for all."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from PIL import Image
from torch import Tensor, nn

OPENAI_MEAN = (0.48145466, 0.4578275, 0.40821073)
OPENAI_STD = (0.26862954, 0.26130258, 0.27577711)

IMAGE_POOLING = {
    "class": "class token",
    "class_with_mean": "class token, with the mean",
    "mean": "mean of the patches",
    "mean_before_norm": "mean of the patches, then norm",
    "attention": "attention",
    "attention_before_norm": "attention, then norm",
}
TEXT_POOLING = {
    "end": "end of the text",
    "last": "last position",
    "first": "first position",
    "mean": "mean of the text",
    "class": "class token",
}


@dataclass(frozen=True)
class Side:
    """One way to compute a CLIP.

    Attributes:
        name: whose it is, for people: "open_clip 3.3.0".
        settings: what changes the function beside the weights, as far as this side can tell: name
            → value, for people.
        scale: s, the factor on cosine similarities.
        pixels: an upright RGB image → [3, R, R].
        tokens: a text → token ids as its tower reads them: up to the token that it reads at where
            nothing behind it counts, else filled up.
        encode_images: [B, 3, R, R] → L2-normalised features [B, D].
        encode_texts: S texts → L2-normalised features [S, D].
        bias: b, what is added to s · cosine; None of a model that has none.
    """

    name: str
    settings: Mapping[str, str]
    scale: float
    pixels: Callable[[Image.Image], Tensor]
    tokens: Callable[[str], list[int]]
    encode_images: Callable[[Tensor], Tensor]
    encode_texts: Callable[[Sequence[str]], Tensor]
    bias: float | None = None


@dataclass(frozen=True)
class Reading:
    """How a picture becomes a square of `resolution` pixels, as open_clip's transform has it.

    Attributes:
        mode, resized: how it is resized first, and to which side.
    """

    resolution: int
    mean: Sequence[float] = OPENAI_MEAN
    std: Sequence[float] = OPENAI_STD
    interpolation: str = "bicubic"
    mode: str = "shortest"
    resized: int | None = None
    fill: int = 0

    def transform(self) -> Callable[[Image.Image], Tensor]:
        from open_clip.transform import image_transform

        transform: Callable[[Image.Image], Tensor] = image_transform(
            self.resolution,
            is_train=False,
            mean=self.mean,
            std=self.std,
            interpolation=self.interpolation,
            resize_mode=self.mode,
            fill_color=self.fill,
        )
        return transform


@dataclass(frozen=True)
class TowerSettings:
    """What changes a tower's function beside its weights, in words; None where it can't be told.

    Attributes:
        activation, heads: of the blocks.
        eps: of all norms, see `norms_of`.
        pooling: where the feature is read, a value of `IMAGE_POOLING` or `TEXT_POOLING`.
        rotation: whether queries and keys are turned by their place, of an image tower.
        context, padding: places of a text, and the token that fills it up where that counts.
    """

    activation: str | None = None
    heads: str | None = None
    eps: str | None = None
    pooling: str | None = None
    rotation: str | None = None
    context: int | None = None
    padding: int | None = None


def settings_of(image: TowerSettings, text: TowerSettings, reading: Reading) -> dict[str, str]:
    """Settings by name; without those that this side can't tell."""
    side = reading.resized or reading.resolution
    told = {
        "activation, image": image.activation,
        "activation, text": text.activation,
        "heads, image": image.heads,
        "heads, text": text.heads,
        "norm epsilon, image": image.eps,
        "norm epsilon, text": text.eps,
        "pooling, image": image.pooling,
        "pooling, text": text.pooling,
        "rotation, image": image.rotation,
        "context length": text.context,
        "padding token": text.padding,
        "resolution": f"{reading.resolution} px",
        "resize": "none" if reading.mode == "none" else f"{reading.mode}, {side} px",
        "interpolation": reading.interpolation,
        "mean": " ".join(f"{value:.5g}" for value in reading.mean),
        "std": " ".join(f"{value:.5g}" for value in reading.std),
    }
    return {name: str(value) for name, value in told.items() if value is not None}


def each(values: Iterable[object]) -> str:
    """Values of all blocks: one where they agree.

    Example:
        >>> each([8, 8, 8]), each(["gelu", "relu"])
        ('8', 'gelu, relu')
    """
    return ", ".join(dict.fromkeys(map(str, values)))


def norms_of(*modules: nn.Module) -> str | None:
    """The ε of all layer norms in some modules; None if there are none."""
    found = {m.eps for part in modules for m in part.modules() if isinstance(m, nn.LayerNorm)}
    return ", ".join(f"{eps:.0e}" for eps in sorted(found)) or None


def turned(rotation: object) -> str:
    """Whether an image tower rotates by place, in words."""
    return "none" if rotation is None else "by place"
