"""Training crops of images that are decoded already, on any device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.backbones.preprocess import Preprocess
from promptot.errors import PromptotError

FILTERS = ("bilinear", "bicubic")
"""What PyTorch resamples with as Pillow does, smoothing where it makes an image smaller."""

HAS_BYTE_KERNEL = ("cpu",)


class Crop(NamedTuple):
    """A part of an image, and whether it is mirrored."""

    top: int
    left: int
    height: int
    width: int
    flipped: bool


class TensorCrops:
    """`Preprocess.train` for tensors: the same crops of the same draws, resampled by PyTorch.

    Of photographs 99.99 % of the values differ by one level of 255 at most. Single pixels at hard
    edges differ by more (18): there the order of the passes shows, which Pillow 13.0 chooses by an
    image's shape.

    Args:
        preprocess: of the backbone.
        scale: share of the image's area that a crop covers, smallest and largest.
        flip: probability of a horizontal flip.

    Raises:
        PromptotError: the backbone's filter is another than bilinear or bicubic.

    Example:
        >>> crops = TensorCrops(Preprocess(32))
        >>> image = torch.zeros(3, 40, 60, dtype=torch.uint8)
        >>> crops([image], [crops.draw(40, 60)]).shape
        torch.Size([1, 3, 32, 32])
    """

    def __init__(
        self, preprocess: Preprocess, scale: tuple[float, float] = (0.08, 1.0), flip: float = 0.5
    ) -> None:
        if preprocess.interpolation not in FILTERS:
            raise PromptotError(
                f"Decoded images can't be resampled with '{preprocess.interpolation}'.",
                fix="Set data.decode=each-time.",
            )
        from torchvision.transforms import v2

        self.resolution, self._mode = preprocess.resolution, preprocess.interpolation
        self._boxes: Any = v2.RandomResizedCrop(self.resolution, scale=scale, antialias=True)
        self._flip = flip
        self._mean, self._std = (
            torch.tensor(values)[:, None, None] for values in (preprocess.mean, preprocess.std)
        )

    def draw(self, height: int, width: int) -> Crop:
        """A crop of an image of this size, from PyTorch's global generator.

        It takes from it what the transform of PIL images does, in the same order.
        """
        box = self._boxes.make_params([torch.empty(3, height, width, device="meta")])
        flipped = bool(torch.rand(1) < self._flip)
        return Crop(box["top"], box["left"], box["height"], box["width"], flipped)

    def __call__(self, images: Sequence[Tensor], crops: Sequence[Crop]) -> Tensor:
        """Normalised crops [B, 3, R, R], fp32.

        Args:
            images: uint8 [3, H, W] each, all on one device; in memory a pixel's channels may be
                neighbours.
            crops: one for each.
        """
        resized = torch.stack([self._resize(*pair) for pair in zip(images, crops, strict=True)])
        self._mean, self._std = (each.to(resized.device) for each in (self._mean, self._std))
        return resized.to(torch.float32).div_(255).sub_(self._mean).div_(self._std)

    def _resize(self, image: Tensor, crop: Crop) -> Tensor:
        """Width first, then height, and whole levels after each: as Pillow does with most."""
        top, left, height, width, flipped = crop
        part = image[None, :, top : top + height, left : left + width]
        side = self.resolution
        if image.device.type in HAS_BYTE_KERNEL:  # it does both
            part = self._interpolate(part, (side, side))
        else:
            part = part.to(torch.float32)
            for size in ((height, side), (side, side)):
                part = self._interpolate(part, size).add_(0.5).floor_().clamp_(0, 255)
        return (part.flip(-1) if flipped else part)[0]

    def _interpolate(self, part: Tensor, size: tuple[int, int]) -> Tensor:
        if part.shape[-2:] == size:
            return part.clone()
        return F.interpolate(part, size, mode=self._mode, antialias=True)
