"""From a PIL image to what an image tower expects.

torchvision is imported when the first transform is made: it brings 0.25 GB of memory and more than
a second, and who only trains on tensors or reads a card needs none of it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True)
class Preprocess:
    """How a backbone wants its images; makes the transforms for training and for testing.

    Attributes:
        resolution: side of the square input, in pixels.
        mean, std: per channel, of pixel values in 0..1.
        interpolation: "bicubic" or "bilinear".
    """

    resolution: int
    mean: tuple[float, float, float] = CLIP_MEAN
    std: tuple[float, float, float] = CLIP_STD
    interpolation: str = "bicubic"

    def test(self) -> Callable[[Image.Image], Tensor]:
        """Resize the short side, crop the centre, normalise; gives [3, R, R]."""
        from torchvision.transforms import InterpolationMode, v2

        return v2.Compose(
            [
                v2.Resize(self.resolution, InterpolationMode(self.interpolation), antialias=True),
                v2.CenterCrop(self.resolution),
                *self._to_tensor(),
            ]
        )

    def train(
        self, scale: tuple[float, float] = (0.08, 1.0), flip: float = 0.5
    ) -> Callable[[Image.Image], Tensor]:
        """Random resized crop, horizontal flip, normalise; gives [3, R, R].

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
