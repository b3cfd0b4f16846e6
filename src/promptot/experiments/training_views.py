"""The augmented views that the methods of one task and seed share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.data.loader import Batch
from promptot.data.task import ImageTask
from promptot.experiments.cells import digest_of
from promptot.experiments.feature_store import read_tensors, write_tensors
from promptot.experiments.image_features import Count, keeps_tokens
from promptot.recipes import Recipe
from promptot.training.batches import fixed_views, training_loader, view_features, views_used
from promptot.training.trainer import Loader
from promptot.training.views import CachedViews

_COLUMNS = ("tokens", "labels", "indices", "teacher")  # of a `Batch`


@dataclass(frozen=True, eq=False)
class TrainingViews:
    """The augmented training views of one task and seed, shared by the methods that ask for them.

    They are kept in memory, and in a file too where it is worth it.

    Attributes:
        folder: where the files go; it may be removed at any time. None keeps all in memory.
        backbone: on the device to use.
        task: its training images.
        seed: of the augmentation, and of the order.
        workers: processes that load images.
        tokens: whether to write patch tokens; None: where it is worth it, see `keeps_tokens`.
    """

    folder: Path | None
    backbone: Backbone
    task: ImageTask
    seed: int
    workers: int = 0
    tokens: bool | None = None
    _views: dict[tuple[float, int], list[Batch]] = field(default_factory=dict)
    _features: dict[tuple[float, int], Tensor] = field(default_factory=dict)

    def loader(self, recipe: Recipe, count: Count | None = None) -> Loader | None:
        """The batches that a recipe trains on; None where it keeps no views, or does not train.

        Args:
            recipe: says how many views, and how they are cropped and batched.
            count: called with how many images were computed, for a progress bar.
        """
        data, optim = recipe.data, recipe.optim
        if data.views is None or not recipe.trains:
            return None
        if data.teacher == "cached-views":
            fixed = data.smallest_crop, views_used(recipe)
            if fixed not in self._features:
                (self._features[fixed],) = self._cached(
                    "teacher",
                    fixed,
                    ("features",),
                    True,
                    lambda: [self._made_features(recipe, count)],
                )
            features = self._features[fixed]
            return fixed_views(self.backbone, self.task, recipe, self.seed, features, self.workers)
        key = data.smallest_crop, data.views
        if key not in self._views:
            worth_it = keeps_tokens(self.backbone) if self.tokens is None else self.tokens
            columns = self._cached(
                "views", key, _COLUMNS, worth_it, lambda: self._made_views(recipe, count)
            )
            self._views[key] = [Batch(*view) for view in zip(*columns, strict=True)]
        return CachedViews(self._views[key], optim.batch_size, optim.drop_last, self.seed)

    def _made_features(self, recipe: Recipe, count: Count | None) -> Tensor:
        return view_features(self.backbone, self.task, recipe, self.seed, self.workers, count)

    def _made_views(self, recipe: Recipe, count: Count | None) -> list[Tensor]:
        """The columns of all views, [K, N, ...] each."""
        made = training_loader(self.backbone, self.task, recipe, self.seed, self.workers, count)
        assert isinstance(made, CachedViews)
        rows = zip(*made.views, strict=True)
        return [torch.stack([tensor for tensor in row if tensor is not None]) for row in rows]

    def _cached(
        self,
        kind: str,
        views: tuple[float, int],
        columns: tuple[str, ...],
        write: bool,
        make: Callable[[], list[Tensor]],
    ) -> list[Tensor]:
        """The tensors from their file, or made and, if `write`, written to it."""
        if self.folder is None:
            return make()
        decides: list[Any] = [self.backbone.identity().digest, self.seed, *views]
        decides += [(example.hash(), example.label) for example in self.task.train]
        path = self.folder / f"{kind}-{digest_of(decides)[:16]}.safetensors"
        stored = read_tensors(path, columns)
        if stored is not None:
            return stored[1]
        made = make()
        if write:
            write_tensors(path, dict(zip(columns, made, strict=True)))
        return made
