"""What methods share: the frozen stem's output for test images (on disk) and for training views."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.data.images.read_image import UnreadableImage
from promptot.data.loader import Batch
from promptot.data.task import Example, Held, ImageTask
from promptot.experiments.frozen_features import FrozenFeatures
from promptot.files.reading import open_regular, parse_json
from promptot.files.weights_file import DAMAGED
from promptot.files.writing import atomic_write
from promptot.recipes import Recipe
from promptot.training.batches import (
    EVALUATION_BATCH,
    evaluation_loader,
    fixed_views,
    training_loader,
    view_features,
    views_used,
)
from promptot.training.trainer import Loader
from promptot.training.views import CachedViews, keep_view

Count = Callable[[int], None]
_COLUMNS = ("tokens", "labels", "indices", "teacher")  # of a `Batch`


def keeps_tokens(backbone: Backbone) -> bool:
    """Whether the stem's patch tokens are much smaller than the images they are made of.

    They are for a convolutional trunk, whose output is worth keeping; they are not for a ViT's own
    patch embedding, which is cheap.
    """
    side = backbone.preprocess.resolution
    with torch.no_grad():
        blank = torch.zeros(1, 3, side, side, device=backbone.device)
        return bool(2 * backbone.image_tower.stem(blank).numel() <= blank.numel())


class KeptImages:
    """Test images as patch tokens and teacher features, computed once and kept in a folder.

    An image is known by its bytes, a file by the backbone and the images in it; a file that does
    not fit is left alone, a damaged one is replaced. Where patch tokens are no smaller than the
    images (a ViT's own patch embedding, which is cheap), only the frozen model's features are kept,
    for the methods whose image tower has no prompts.

    Args:
        folder: where the files go; it may be removed at any time.
        backbone: on the device to use.
        workers: processes that load images.
    """

    def __init__(self, folder: Path, backbone: Backbone, workers: int = 0) -> None:
        self.folder = folder
        self.backbone = backbone
        self.workers = workers
        self._hashes: dict[tuple[str, Held | None], str | None] = {}
        """By source the hash of the content, None: unreadable."""
        self._rows: dict[str, tuple[Tensor, Tensor]] | None = None  # hash -> tokens, teacher
        self._keeps = keeps_tokens(backbone)
        self._identity = backbone.identity().digest
        self._frozen = FrozenFeatures(folder, backbone, self._identity, workers)

    def batches(
        self, examples: Sequence[Example], count: Count | None = None, *, frozen: bool = False
    ) -> Iterable[Batch]:
        """The readable ones among some test images, for `score`; `indices` are their places.

        Args:
            examples: the images.
            count: called with how many were computed, for a progress bar.
            frozen: whether the frozen model's features are all that is needed of an image.
        """
        if not self._keeps and frozen:
            return self._frozen.batches(examples, count)
        if not self._keeps:
            return evaluation_loader(self.backbone, tuple(examples), self.workers)
        if self._rows is None:
            self._rows = self._read()
        missing = [e for e in examples if self._hash(e) not in (None, *self._rows)]
        if missing:
            self._compute(missing, self._rows, count)
        places = [i for i, e in enumerate(examples) if self._hash(e) in self._rows]
        return [
            self._batch(examples, places[start : start + EVALUATION_BATCH], self._rows)
            for start in range(0, len(places), EVALUATION_BATCH)
        ]

    def _batch(
        self, examples: Sequence[Example], places: list[int], rows: dict[str, tuple[Tensor, Tensor]]
    ) -> Batch:
        found = [rows[self._hash(examples[place]) or ""] for place in places]
        labels = torch.tensor([examples[place].label for place in places])
        tokens, teacher = (torch.stack(column) for column in zip(*found, strict=True))
        return Batch(tokens, labels, torch.tensor(places), teacher)

    def _hash(self, example: Example) -> str | None:
        if example.source not in self._hashes:
            try:
                self._hashes[example.source] = example.hash()
            except UnreadableImage:
                self._hashes[example.source] = None
        return self._hashes[example.source]

    def _compute(
        self,
        examples: Sequence[Example],
        rows: dict[str, tuple[Tensor, Tensor]],
        count: Count | None,
    ) -> None:
        once = list({self._hash(example): example for example in examples}.values())
        loader = evaluation_loader(self.backbone, tuple(once), self.workers)
        try:
            kept = keep_view(self.backbone, loader, count)
        except ValueError:  # none of them can be read
            kept = None
        read = set() if kept is None else set(kept.indices.tolist())
        unreadable = {self._hash(e) for place, e in enumerate(once) if place not in read}
        for example in examples:  # those of the same content too
            if self._hash(example) in unreadable:
                self._hashes[example.source] = None
        if kept is None or kept.teacher is None:
            return
        hashes = [self._hash(once[index]) or "" for index in kept.indices.tolist()]
        self._write(hashes, kept.images, kept.teacher)
        rows.update(_rows(hashes, kept.images, kept.teacher))

    def _write(self, hashes: Sequence[str], tokens: Tensor, teacher: Tensor) -> None:
        name = hashlib.sha256("\n".join([self._identity, *hashes]).encode()).hexdigest()[:16]
        metadata = {"backbone": self._identity, "images": json.dumps(list(hashes))}
        with atomic_write(self.folder / f"features-{name}.safetensors") as temporary:
            save_file({"tokens": tokens, "teacher": teacher}, temporary, metadata)

    def _read(self) -> dict[str, tuple[Tensor, Tensor]]:
        rows: dict[str, tuple[Tensor, Tensor]] = {}
        for path in sorted(self.folder.glob("features-*.safetensors")):
            try:
                open_regular(path).close()
                with safe_open(path, framework="pt") as file:
                    metadata = file.metadata() or {}
                    if metadata.get("backbone") != self._identity:
                        continue
                    hashes = parse_json(metadata["images"])
                    tokens, teacher = file.get_tensor("tokens"), file.get_tensor("teacher")
                rows.update(_rows(hashes, tokens, teacher))
            except DAMAGED:
                continue  # what it held is computed again
        return rows


def _rows(
    hashes: Sequence[str], tokens: Tensor, teacher: Tensor
) -> dict[str, tuple[Tensor, Tensor]]:
    return dict(zip(hashes, zip(tokens, teacher, strict=True), strict=True))


class KeptViews:
    """The augmented training views of one task and seed, shared by the methods that ask for them.

    They are kept in memory, and in a file too where patch tokens are worth it.

    Args:
        folder: where the files go; it may be removed at any time.
        backbone: on the device to use.
        task: its training images.
        seed: of the augmentation, and of the order.
        workers: processes that load images.
    """

    def __init__(
        self, folder: Path, backbone: Backbone, task: ImageTask, seed: int, workers: int = 0
    ) -> None:
        self.folder = folder
        self.backbone = backbone
        self.task = task
        self.seed = seed
        self.workers = workers
        self._views: dict[tuple[float, int], list[Batch]] = {}
        self._features: dict[tuple[float, int], Tensor] = {}

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
                self._features[fixed] = self._load_features(recipe, count)
            features = self._features[fixed]
            return fixed_views(self.backbone, self.task, recipe, self.seed, features, self.workers)
        key = data.smallest_crop, data.views
        if key not in self._views:
            self._views[key] = self._load(recipe, count)
        return CachedViews(self._views[key], optim.batch_size, optim.drop_last, self.seed)

    def _load(self, recipe: Recipe, count: Count | None) -> list[Batch]:
        """The views from the file, or computed and written to it."""
        path = self._path("views", recipe.data.smallest_crop, recipe.data.views)
        try:
            open_regular(path).close()  # a pipe would be waited for
            stored = load_file(path)
            columns = [stored[name] for name in _COLUMNS]
            return [Batch(*view) for view in zip(*columns, strict=True)]
        except DAMAGED:
            pass  # not there, or damaged
        made = training_loader(self.backbone, self.task, recipe, self.seed, self.workers, count)
        assert isinstance(made, CachedViews)
        if keeps_tokens(self.backbone):
            rows = zip(*made.views, strict=True)
            columns = [
                torch.stack([tensor for tensor in row if tensor is not None]) for row in rows
            ]
            with atomic_write(path) as temporary:
                save_file(dict(zip(_COLUMNS, columns, strict=True)), temporary)
        return made.views

    def _load_features(self, recipe: Recipe, count: Count | None) -> Tensor:
        """The teacher's features of the views from the file, or computed and written to it."""
        path = self._path("teacher", recipe.data.smallest_crop, views_used(recipe))
        try:
            open_regular(path).close()
            return load_file(path)["features"]
        except DAMAGED:
            pass  # not there, or damaged
        made = view_features(self.backbone, self.task, recipe, self.seed, self.workers, count)
        with atomic_write(path) as temporary:
            save_file({"features": made}, temporary)
        return made

    def _path(self, kind: str, crop: float, views: int | None) -> Path:
        decides: list[Any] = [self.backbone.identity().digest, self.seed, crop, views]
        decides += [(example.hash(), example.label) for example in self.task.train]
        digest = hashlib.sha256(json.dumps(decides).encode()).hexdigest()[:16]
        return self.folder / f"{kind}-{digest}.safetensors"
