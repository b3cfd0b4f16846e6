"""Photographs, as far as the trunk's own knowledge is passed on: their features, and its head.

The photographs teach nothing that the trunk has not learnt from a million others: what is kept of
them are its features, labelled by its own head.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageEnhance
from torch import Tensor

from asset_build.augment import RESOLUTION
from asset_build.features import to_tensor
from asset_build.trunk import FastTrunk, Head, load_trunk
from promptot.data.catalog.public.imagenet import imagenet_folders

HELD_OUT_EVERY = 5
"""In the order of file names every fifth photograph, the first included, is never trained on."""

BATCH = 64
BICUBIC = Image.Resampling.BICUBIC


def list_photographs(folder: Path, *, held_out: bool) -> list[Path]:
    """The photographs of a folder that are held out of the training, or all others.

    Each is called after its ImageNet class, such as `n01440764_tench.jpg`.
    """
    paths = sorted(folder.glob("n*.jpg"))
    if not paths:
        raise SystemExit(f"No photographs (n*_*.jpg) in {folder}: say where with --photographs.")
    return [path for i, path in enumerate(paths) if (i % HELD_OUT_EVERY == 0) is held_out]


def extract_photographs(folder: Path, target: Path, views: int, *, held_out: bool) -> None:
    """Write `target`: {"maps": [views · n, N, 320] fp16 of the trunk, "files": n names}.

    The first view of each is the whole photograph's centre, the others are random.
    """
    if target.exists():
        return
    paths = list_photographs(folder, held_out=held_out)
    trunk = FastTrunk(load_trunk())
    maps: list[Tensor] = []
    for number in range(views):
        for start in range(0, len(paths), BATCH):
            chosen = paths[start : start + BATCH]
            pictures = [
                random_view(path, np.random.default_rng((number, start + i)))
                if number
                else centre_view(path)
                for i, path in enumerate(chosen)
            ]
            maps.append(trunk(to_tensor(np.stack(pictures))))
        print(f"features of view {number}: {len(paths)} photographs", flush=True)
    torch.save({"maps": torch.cat(maps), "files": [path.name for path in paths]}, target)


def class_of(file: str) -> int:
    """ImageNet's label of a photograph called `n01440764_tench.jpg`."""
    return imagenet_folders().index(file.split("_")[0])


def centre_view(path: Path) -> np.ndarray:
    """The centre of a photograph [R, R, 3] uint8, its shorter side scaled to R, as CLIP does."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    scale = RESOLUTION / min(image.size)
    width, height = (max(RESOLUTION, round(side * scale)) for side in image.size)
    left, top = (width - RESOLUTION) // 2, (height - RESOLUTION) // 2
    box = (left, top, left + RESOLUTION, top + RESOLUTION)
    return np.asarray(image.resize((width, height), BICUBIC).crop(box))


def random_view(path: Path, rng: np.random.Generator) -> np.ndarray:
    """A random part of a photograph [R, R, 3] uint8, at times mirrored, its colours changed."""
    with Image.open(path) as opened:
        image = opened.convert("RGB")
    area, ratio = rng.uniform(0.25, 1.0), np.exp(rng.uniform(-0.3, 0.3))
    side = (area * image.width * image.height) ** 0.5
    width = min(image.width, side * ratio)
    height = min(image.height, side / ratio)
    left, top = rng.uniform(0, image.width - width), rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    image = image.resize((RESOLUTION, RESOLUTION), BICUBIC, box=box)
    if rng.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if rng.random() < 0.6:
        for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
            image = kind(image).enhance(rng.uniform(0.6, 1.4))
    if rng.random() < 0.1:
        image = image.convert("L").convert("RGB")
    if rng.random() < 0.15:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 85)))
        image = Image.open(buffer).convert("RGB")
    return np.asarray(image)


@dataclass(frozen=True)
class Directions:
    """The trunk's head as a CLIP would have it: a projection of its pooled feature, and a direction
    for each of its classes, so that cosines stand for its logits.

    Attributes:
        weight, bias: of the projection, [D, 1280] and [D]; its mean is 0 and its mean square 1.
        classes: unit vectors [1000, D].
    """

    weight: Tensor
    bias: Tensor
    classes: Tensor

    def project(self, pooled: Tensor) -> Tensor:
        """Unit vectors [B, D] of pooled features [B, 1280]."""
        return F.normalize(F.linear(pooled, self.weight, self.bias), dim=-1)


def find_directions(head: Head, maps: Tensor, size: int) -> Directions:
    """The best head of rank `size`: the least squared error of its (centred) logits.

    Args:
        maps: of photographs [n, N, 320], over which the error is counted.
    """
    pooled = torch.cat([head(part.float()).mean(1) for part in maps.split(256)])
    mean = pooled.mean(0)
    covariance = torch.cov(pooled.T)
    covariance += 1e-3 * covariance.diagonal().mean() * torch.eye(len(mean))
    root = torch.linalg.cholesky(covariance)  # its columns whiten
    weight = head.classifier.weight.detach()
    left, values, right = torch.linalg.svd((weight - weight.mean(0)) @ root, full_matrices=False)
    share = values[:size].sqrt()
    down = torch.linalg.solve_triangular(root.T, right[:size].T * share, upper=True)
    turn = torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(0))).Q
    down = down @ turn  # so that no dimension of the feature carries more than others
    down = down / ((pooled - mean) @ down).square().mean().sqrt()
    classes = F.normalize(left[:, :size] * share @ turn, dim=-1)
    return Directions(down.T.contiguous(), -(mean @ down), classes)
