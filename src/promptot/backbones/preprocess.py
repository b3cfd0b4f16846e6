"""From a PIL image to what an image tower expects.

torchvision is imported when the first transform is made: it brings 0.25 GB of memory and more than
a second, and who only trains on tensors or reads a card needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from promptot.errors import PromptotError, nearest

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
INTERPOLATIONS = {filter.name.lower(): filter for filter in Image.Resampling}
RESIZE_MODES = ("shortest", "longest", "squash", "none")
CROP_ROUNDINGS = ("nearest", "down")
_ALWAYS_SHOWN = ("resolution", "mean", "std", "interpolation")


@dataclass(frozen=True, repr=False)
class Preprocess:
    """How a backbone wants its images; makes the transforms for training and for testing.

    Attributes:
        resolution: side R of the square input, in pixels.
        mean, std: per channel, of pixel values in 0..1.
        interpolation: a filter of Pillow, see `INTERPOLATIONS`.
        resize_mode: "shortest" scales the image until its shorter side is `resize`, "longest"
            until its longer side is; "squash" stretches it to a square of `resize`; "none" leaves
            it as it is. Whatever is then beyond R × R is cut off around the centre, and what is
            missing is filled.
        fill: grey value 0..255 of borders that are missing.
        resize: side in pixels that `resize_mode` speaks of; None for `resolution`.
        crop_rounding: where the cut begins if the margins can't be equal: "nearest" rounds half
            the margin to an even pixel (torchvision, open_clip), "down" always down (transformers).

    Raises:
        PromptotError: a value that is none of these.

    Example:
        >>> Preprocess(224, resize_mode="squash").test()(Image.new("RGB", (640, 480))).shape
        torch.Size([3, 224, 224])
    """

    resolution: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"
    resize_mode: str = "shortest"
    fill: int = 0
    resize: int | None = None
    crop_rounding: str = "nearest"

    def __post_init__(self) -> None:
        for what, value, known in (
            ("interpolation", self.interpolation, tuple(INTERPOLATIONS)),
            ("resize mode", self.resize_mode, RESIZE_MODES),
            ("crop rounding", self.crop_rounding, CROP_ROUNDINGS),
        ):
            if value not in known:
                raise PromptotError(
                    f"The preprocessing of images knows no {what} '{value}'.",
                    fix=nearest(str(value), known),
                )
        for what, sound in (
            ("a resolution of at least 1 pixel", self.resolution >= 1),
            ("a side to resize to of at least 1 pixel", self.resize is None or self.resize >= 1),
            ("a fill from 0 to 255", 0 <= self.fill <= 255),
            ("a mean and a deviation for each of three channels",
             len(self.mean) == len(self.std) == 3),
            ("deviations above 0", all(value > 0 for value in self.std)),
        ):  # fmt: skip
            if not sound:
                raise PromptotError(
                    f"The preprocessing of images needs {what}.", fix="Correct its configuration."
                )

    def __repr__(self) -> str:
        """The first four fields, and of the others those that are not as usual."""
        shown = (
            f"{field.name}={getattr(self, field.name)!r}"
            for field in fields(self)
            if field.name in _ALWAYS_SHOWN or getattr(self, field.name) != field.default
        )
        return f"Preprocess({', '.join(shown)})"

    @property
    def resized_to(self) -> int:
        """The side in pixels that `resize_mode` speaks of."""
        return self.resolution if self.resize is None else self.resize

    def test(self) -> Callable[[Image.Image], Tensor]:
        """Resize, cut or fill around the centre, normalise; gives [3, R, R]."""
        from torchvision.transforms import v2

        return v2.Compose([_Fit(self), *self._to_tensor()])

    def train(
        self, scale: tuple[float, float] = (0.08, 1.0), flip: float = 0.5
    ) -> Callable[[Image.Image], Tensor]:
        """Random resized crop, horizontal flip, normalise; gives [3, R, R].

        A crop has an aspect of 3:4 to 4:3 and is stretched to the square whatever `resize_mode`
        says, as open_clip trains too: the mode says how a whole image becomes a square, and a crop
        has no borders to fill.

        Args:
            scale: share of the image's area that a crop covers, smallest and largest.
            flip: probability of a horizontal flip.
        """
        from torchvision.transforms import InterpolationMode, v2

        return v2.Compose(
            [
                v2.RandomResizedCrop(
                    self.resolution,
                    scale=scale,
                    interpolation=InterpolationMode(self.interpolation),
                    antialias=True,
                ),
                v2.RandomHorizontalFlip(flip),
                *self._to_tensor(),
            ]
        )

    def _to_tensor(self) -> list[Any]:
        from torchvision.transforms import v2

        return [
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(self.mean, self.std),
        ]


class _Fit:
    """An image of any size → a square of the resolution."""

    def __init__(self, preprocess: Preprocess) -> None:
        self.preprocess = preprocess

    def __call__(self, image: Image.Image) -> Image.Image:
        wanted = self.preprocess
        size = _resized(image.size, wanted.resized_to, wanted.resize_mode)
        if size != image.size:
            image = image.resize(size, INTERPOLATIONS[wanted.interpolation])
        return _cut_or_fill(image, wanted.resolution, wanted.fill, wanted.crop_rounding)

    def __repr__(self) -> str:
        return f"Fit({self.preprocess!r})"


def _resized(size: tuple[int, int], side: int, mode: str) -> tuple[int, int]:
    """Width and height after resizing.

    The two libraries that this follows do not round alike: the longer side is rounded down where
    the shorter one is given (torchvision), both to the nearest where the longer one is (open_clip).
    """
    width, height = size
    if mode == "none":
        return size
    if mode == "squash":
        return side, side
    if mode == "longest":
        ratio = max(height / side, width / side)
        return max(1, round(width / ratio)), max(1, round(height / ratio))
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _cut_or_fill(image: Image.Image, side: int, fill: int, rounding: str) -> Image.Image:
    """The centre of an image, `side` × `side`; what lies outside of it is filled."""
    width, height = image.size
    if (width, height) == (side, side):
        return image
    left, top = (_begin(length, side, rounding) for length in (width, height))
    if width >= side and height >= side:
        return image.crop((left, top, left + side, top + side))
    canvas = Image.new(image.mode, (side, side), (fill,) * len(image.getbands()))
    canvas.paste(image, (-left, -top))
    return canvas


def _begin(length: int, side: int, rounding: str) -> int:
    """Where a centred stretch of `side` pixels begins in one of `length`; below 0 outside."""
    if rounding == "down":
        return (length - side) // 2
    return round((length - side) / 2) if length >= side else -((side - length) // 2)
