"""Feature maps like those of photographs, made from the trunk's own ImageNet knowledge.

No photograph is at hand, and features of drawings are far from features of photographs. But the
trunk tells what photographs look like to it: its batch norms hold their channel statistics, its
classifier their classes. So maps of drawings are moved to the statistics of photographs and then
changed until the classifier is sure of a class (after Yin et al., "Dreaming to Distill", CVPR
2020, on the last map instead of on pixels).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asset_build.trunk import Head, load_trunk

CLASSES = 1000
COPIES = 3
ITERATIONS = 40
BATCH = 250


def dream(features: Path, target: Path, seed: int = 0) -> None:
    """Write `target`: {"maps": [n, N, 320] fp16, "labels": [n]}, COPIES maps a class."""
    if target.exists():
        return
    generator = torch.Generator().manual_seed(seed)
    model: Any = load_trunk()
    head = Head(model)
    last = model.blocks[-1][-1].bn3
    photo = (last.bias.detach(), last.weight.detach().abs())
    photo_head = (model.bn2.bias.detach(), model.bn2.weight.detach().abs())
    drawings = np.load(features / "view-0.npy", mmap_mode="r")
    sample = torch.from_numpy(np.array(drawings[::7])).float()
    mean, deviation = sample.mean((0, 1)), sample.std((0, 1))
    labels = torch.arange(CLASSES).repeat(COPIES)
    labels = labels[torch.randperm(len(labels), generator=generator)]
    made: list[Tensor] = []
    for chunk in labels.split(BATCH):
        rows = torch.randint(len(drawings), (len(chunk),), generator=generator)
        start = torch.from_numpy(drawings[rows.numpy()]).float()
        start = (start - mean) / deviation * photo[1] + photo[0]
        made.append(_towards(start, chunk, head, photo, photo_head).half())
    torch.save({"maps": torch.cat(made), "labels": labels}, target)


def _towards(
    start: Tensor,
    labels: Tensor,
    head: Head,
    photo: tuple[Tensor, Tensor],
    photo_head: tuple[Tensor, Tensor],
) -> Tensor:
    """Maps near `start` [B, N, 320] that the classifier takes for `labels`."""
    maps = start.clone().requires_grad_(True)
    optimizer = torch.optim.Adam([maps], lr=0.15)
    for _ in range(ITERATIONS):
        with torch.autocast("cpu", torch.bfloat16):
            linear = head.linear(maps)
        linear = linear.float()
        logits = head.classifier(linear.clamp(0, 6).mean(1))
        loss = F.cross_entropy(logits, labels, label_smoothing=0.1)
        loss = loss + 0.5 * _distance(maps, photo) + 0.5 * _distance(linear, photo_head)
        loss = loss + 0.1 * ((maps - start) / photo[1]).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return maps.detach()


def _distance(maps: Tensor, statistics: tuple[Tensor, Tensor]) -> Tensor:
    """How far the channel means and deviations over a batch are from `statistics`."""
    mean, deviation = statistics
    shift = (maps.mean((0, 1)) - mean) / deviation
    spread = (maps.std((0, 1)) / deviation).log()
    return shift.square().mean() + spread.square().mean()
