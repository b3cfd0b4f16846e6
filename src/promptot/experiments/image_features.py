"""Test images as what the frozen model makes of them, which no prompt changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import torch

from promptot.backbones.backbone import Backbone
from promptot.data.loader import Batch
from promptot.data.task import Example
from promptot.experiments.feature_store import FeatureStore
from promptot.training.batches import EVALUATION_BATCH, evaluation_loader
from promptot.training.views import keep_view

Count = Callable[[int], None]
ROWS = 1024
"""Images a batch that has features alone."""
TOKENS = "features", ("tokens", "teacher")
FEATURES = "frozen", ("features",)
"""The kinds of files that are kept, and their tensors."""


def keeps_tokens(backbone: Backbone) -> bool:
    """Whether the stem's patch tokens are much smaller than the images they are made of.

    They are for a convolutional trunk, whose output is worth keeping; they are not for a ViT's own
    patch embedding, which is cheap.
    """
    side = backbone.preprocess.resolution
    with torch.no_grad():
        blank = torch.zeros(1, 3, side, side, device=backbone.device)
        return bool(2 * backbone.image_tower.stem(blank).numel() <= blank.numel())


class ImageFeatures:
    """Test images as patch tokens and teacher features, computed once and kept.

    Where patch tokens are not worth keeping, only the frozen model's features are, for the methods
    whose image tower has no prompts: D numbers an image, 2 KB for a ViT-B/16.

    Args:
        folder: where the files go, see `FeatureStore`.
        backbone: on the device to use.
        workers: processes that load images.
        tokens: whether to keep patch tokens; None: where it is worth it, see `keeps_tokens`.
    """

    def __init__(
        self,
        folder: Path | None,
        backbone: Backbone,
        workers: int = 0,
        tokens: bool | None = None,
    ) -> None:
        self.backbone = backbone
        self.workers = workers
        self.tokens = keeps_tokens(backbone) if tokens is None else tokens
        layout = TOKENS if self.tokens else FEATURES
        self._store = FeatureStore(folder, backbone.identity().digest, *layout)

    def batches(
        self, examples: Sequence[Example], count: Count | None = None, *, frozen: bool = False
    ) -> Iterable[Batch]:
        """The readable ones among some test images, for `score`; `indices` are their places.

        Args:
            examples: the images.
            count: called with how many were computed, for a progress bar.
            frozen: whether the frozen model's features are all that is needed of an image: then a
                batch may have no images.
        """
        if not self.tokens and not frozen:
            return evaluation_loader(self.backbone, tuple(examples), self.workers)
        if self._store.missing(examples):
            with self._store.filling():
                missing = self._store.missing(examples)
                if missing:
                    self._compute(missing, count)
        return self._batches(examples)

    def _batches(self, examples: Sequence[Example]) -> Iterator[Batch]:
        rows = [self._store.row(example) for example in examples]
        places = [place for place, row in enumerate(rows) if row is not None]
        size = EVALUATION_BATCH if self.tokens else ROWS
        for start in range(0, len(places), size):
            chosen = places[start : start + size]
            found = [row for place in chosen if (row := rows[place]) is not None]
            labels = torch.tensor([examples[place].label for place in chosen])
            *tokens, teacher = (torch.stack(column) for column in zip(*found, strict=True))
            images = tokens[0] if tokens else torch.empty(len(chosen), 0)
            yield Batch(images, labels, torch.tensor(chosen), teacher)

    @torch.no_grad()
    def _compute(self, examples: tuple[Example, ...], count: Count | None) -> None:
        loader = evaluation_loader(self.backbone, examples, self.workers)
        if self.tokens:
            try:
                view = keep_view(self.backbone, loader, count)
            except ValueError:  # none of them can be read
                self._store.add(examples, ())
                return
            assert view.teacher is not None
            self._store.add(examples, view.indices.tolist(), view.images, view.teacher)
            return
        places: list[int] = []
        features = [torch.empty(0, self.backbone.embed_dim)]
        for batch in loader:
            found = self.backbone.encode_image(batch.images.to(self.backbone.device))
            features.append(found.float().cpu())
            places += batch.indices.tolist()
            if count is not None:
                count(len(batch.labels))
        self._store.add(examples, places, torch.cat(features))
