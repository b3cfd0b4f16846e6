"""A few augmented views per image, used in turn, and what is kept of them.

Prompts enter after the stem, and the teacher has none. `CachedViews` keep the patch tokens and the
teacher's features, so that neither the stem nor the teacher is ever computed again: for a backbone
whose stem is most of the work (a convolutional trunk) an epoch costs a fraction of one that
augments anew. `FixedViews` keep the teacher's features alone, D numbers a view, and augment the
images again: for a ViT, whose patch tokens are as large as the images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.data.decoded import DecodedLoader
from promptot.data.loader import Batch, ImageLoader


class CachedViews:
    """K views of N images; epoch e trains on view (e − 1) mod K of every image.

    Args:
        views: each view of all the images, as `keep_view` makes it.
        batch_size, drop_last: of the batches; an epoch is never empty.
        seed: of the order of each epoch.
    """

    def __init__(self, views: list[Batch], batch_size: int, drop_last: bool, seed: int) -> None:
        self.views = views
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.seed = seed

    def __len__(self) -> int:
        """Batches an epoch."""
        images = len(self.views[0].labels)
        whole = images // self.batch_size
        return max(1, whole) if self.drop_last else -(-images // self.batch_size)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffled batches of one epoch, counted from 1."""
        view = self.views[(epoch - 1) % len(self.views)]
        # Seeds are as large as 64 bits; PyTorch takes no more than that.
        generator = torch.Generator().manual_seed((self.seed * 1_000_003 + epoch) % 2**63)
        order = torch.randperm(len(view.labels), generator=generator)
        for chosen in order.split(self.batch_size):
            whole = len(chosen) == self.batch_size or len(order) < self.batch_size
            if whole or not self.drop_last:
                teacher = None if view.teacher is None else view.teacher[chosen]
                yield Batch(view.images[chosen], view.labels[chosen], chosen, teacher)

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each batch of an epoch, images left alone."""
        bare = [Batch(view.labels, view.labels, view.indices) for view in self.views]
        batches = CachedViews(bare, self.batch_size, self.drop_last, self.seed).batches(epoch)
        return (batch.indices.tolist() for batch in batches)


class FixedViews:
    """Augmented images of K fixed views, with the teacher's features of them; epoch e sees view
    (e − 1) mod K, augmented as epoch 1 + (e − 1) mod K of an `ImageLoader` would.

    So the first K epochs are what they would be without anything kept.

    Args:
        loader: of the images; its draws are functions of seed, view and image alone.
        teacher: [K, N, D], as `keep_features` makes it of each view.
    """

    def __init__(self, loader: ImageLoader | DecodedLoader, teacher: Tensor) -> None:
        self.loader = loader
        self.teacher = teacher

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(self.loader)

    def order(self, epoch: int) -> Iterator[list[int]]:
        """The indices of each batch of an epoch; no image is read."""
        return self.loader.order(epoch)

    def batches(self, epoch: int) -> Iterator[Batch]:
        """Shuffled batches of one epoch, counted from 1."""
        view = (epoch - 1) % len(self.teacher)
        for batch in self.loader.batches(epoch, view + 1):
            yield batch._replace(teacher=self.teacher[view, batch.indices])


@torch.no_grad()
def keep_features(
    backbone: Backbone,
    batches: Iterable[Batch],
    images: int,
    progress: Callable[[int], None] | None = None,
) -> Tensor:
    """The teacher's features of one view of N images, on the CPU, [N, D]; NaN where unreadable.

    Args:
        backbone: on the device to use.
        batches: of images [B, 3, R, R].
        images: N.
        progress: called with the number of images after each batch.
    """
    features = torch.full((images, backbone.embed_dim), torch.nan)
    for batch, _, teacher in _taught(backbone, batches, progress):
        features[batch.indices] = teacher.cpu()
    return features


@torch.no_grad()
def keep_view(
    backbone: Backbone,
    batches: Iterable[Batch],
    progress: Callable[[int], None] | None = None,
) -> Batch:
    """Patch tokens and the teacher's features of all images, on the CPU, in order of their indices.

    Args:
        backbone: on the device to use.
        batches: of images [B, 3, R, R].
        progress: called with the number of images after each batch.

    Raises:
        ValueError: there is no batch.
    """
    kept = [
        (tokens.cpu(), batch.labels, batch.indices, teacher.cpu())
        for batch, tokens, teacher in _taught(backbone, batches, progress)
    ]
    if not kept:
        raise ValueError("there are no images to keep")
    tokens, labels, indices, teacher = (torch.cat(column) for column in zip(*kept, strict=True))
    order = indices.argsort()
    return Batch(tokens[order], labels[order], indices[order], teacher[order])


def _taught(
    backbone: Backbone, batches: Iterable[Batch], progress: Callable[[int], None] | None
) -> Iterator[tuple[Batch, Tensor, Tensor]]:
    """Batches, their patch tokens [B, N, W] and the teacher's features of them [B, D]."""
    for batch in batches:
        tokens = backbone.image_tower.stem(batch.images.to(backbone.device))
        yield batch, tokens, backbone.encode_patches(tokens)
        if progress is not None:
            progress(len(batch.labels))


def cached_bytes(backbone: Backbone, images: int, views: int, *, tokens: bool) -> int:
    """Bytes of what is kept of some views: the teacher's features, and perhaps patch tokens."""
    tower = backbone.image_tower
    numbers = backbone.embed_dim + (tower.patches * tower.width if tokens else 0)
    return images * views * numbers * 4
