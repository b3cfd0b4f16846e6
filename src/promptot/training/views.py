"""Patch tokens of a few augmented views per image, made once and used in turn.

Prompts enter after the stem, so for a backbone whose stem is most of the work (a convolutional
trunk) an epoch on kept views costs a fraction of one that augments anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from promptot.tasks.loader import Batch


class CachedViews:
    """K views of N images as patch tokens; epoch e trains on view (e − 1) mod K of every image.

    Args:
        views: the patch tokens of each view, K tensors [N, P, W].
        labels: [N].
        batch_size, drop_last: of the batches; an epoch is never empty.
        seed: of the order of each epoch.
    """

    def __init__(
        self, views: list[Tensor], labels: Tensor, batch_size: int, drop_last: bool, seed: int
    ) -> None:
        self.views = views
        self.labels = labels
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffled batches of one epoch, counted from 1."""
        view = self.views[(epoch - 1) % len(self.views)]
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + epoch)
        order = torch.randperm(len(view), generator=generator)
        for indices in order.split(self.batch_size):
            whole = len(indices) == self.batch_size or len(order) < self.batch_size
            if whole or not self.drop_last:
                yield Batch(view[indices], self.labels[indices], indices)


@torch.no_grad()
def stem_tokens(
    stem: Callable[[Tensor], Tensor],
    batches: Iterable[Batch],
    device: torch.device,
    progress: Callable[[int], None] | None = None,
) -> Batch:
    """Patch tokens of all the images of `batches`, in the order of their indices, on the CPU.

    Args:
        stem: images [B, 3, R, R] to patch tokens [B, P, W].
        progress: called with the number of images after each batch.
    """
    tokens, labels, indices = [], [], []
    for batch in batches:
        tokens.append(stem(batch.images.to(device)).cpu())
        labels.append(batch.labels)
        indices.append(batch.indices)
        if progress is not None:
            progress(len(batch.labels))
    order = torch.cat(indices).argsort()
    return Batch(torch.cat(tokens)[order], torch.cat(labels)[order], torch.cat(indices)[order])
