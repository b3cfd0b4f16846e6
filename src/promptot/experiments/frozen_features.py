"""The frozen model's features of test images, which no prompt changes: computed once and kept."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.data.images.fingerprint import Looks
from promptot.data.loader import Batch
from promptot.data.task import Example, Held
from promptot.files.locks import LockFile
from promptot.files.reading import open_regular, parse_json
from promptot.files.weights_file import DAMAGED
from promptot.files.writing import atomic_write, system_errors
from promptot.training.batches import evaluation_loader

ROWS = 1024
"""Images a batch: there is nothing in it but features."""


class FrozenFeatures:
    """Features of images by their fingerprints, in memory and in a folder that processes share.

    An image is known by `Fingerprint.here`, so that hundreds of thousands need not be read again to
    be recognised. D numbers an image: 2 KB for a ViT-B/16.

    Args:
        folder: where the files go; it may be removed when nothing runs.
        backbone: on the device to use.
        identity: what features depend on beside the image.
        workers: processes that load images.
    """

    def __init__(self, folder: Path, backbone: Backbone, identity: str, workers: int) -> None:
        self.folder = folder
        self.backbone = backbone
        self.identity = identity
        self.workers = workers
        self._keys: dict[tuple[str, Held | None], str] = {}  # source -> key
        self._looks = Looks()
        self._rows: dict[str, Tensor | None] = {}  # key -> features [D], None: unreadable
        self._files: set[Path] = set()  # that were read

    def batches(
        self, examples: Sequence[Example], count: Callable[[int], None] | None
    ) -> Iterator[Batch]:
        """The readable images among some; a batch has labels, places and features [B, D] only."""
        if self._missing(examples):
            self._fill(examples, count)
        rows = [self._rows.get(self._key(example)) for example in examples]
        places = [place for place, row in enumerate(rows) if row is not None]
        for start in range(0, len(places), ROWS):
            chosen = places[start : start + ROWS]
            features = torch.stack([row for place in chosen if (row := rows[place]) is not None])
            labels = torch.tensor([examples[place].label for place in chosen])
            nothing = torch.empty(len(chosen), 0)
            yield Batch(nothing, labels, torch.tensor(chosen), features)

    def _key(self, example: Example) -> str:
        if example.source not in self._keys:
            self._keys[example.source] = example.fingerprint(self._looks).here
        return self._keys[example.source]

    def _missing(self, examples: Sequence[Example]) -> list[Example]:
        absent = {key: e for e in examples if (key := self._key(e)) not in self._rows}
        return list(absent.values())

    def _fill(self, examples: Sequence[Example], count: Callable[[int], None] | None) -> None:
        """Read what others have computed by now, and compute the rest; one process at a time."""
        lock = LockFile(self.folder / "frozen.lock")
        with system_errors(lock.path):
            self.folder.mkdir(parents=True, exist_ok=True)
            lock.acquire(math.inf)
        try:
            self._read()
            missing = self._missing(examples)
            if missing:
                self._compute(missing, count)
        finally:
            lock.release()

    @torch.no_grad()
    def _compute(self, examples: list[Example], count: Callable[[int], None] | None) -> None:
        keys, features = [], [torch.empty(0, self.backbone.embed_dim)]
        for batch in evaluation_loader(self.backbone, tuple(examples), self.workers):
            found = self.backbone.encode_image(batch.images.to(self.backbone.device))
            features.append(found.float().cpu())
            keys += [self._key(examples[index]) for index in batch.indices.tolist()]
            if count is not None:
                count(len(batch.labels))
        matrix = torch.cat(features)
        for example in examples:  # those that could not be read stay None, in this process
            self._rows[self._key(example)] = None
        self._rows.update(zip(keys, matrix, strict=True))
        digest = hashlib.sha256("\n".join([self.identity, *keys]).encode()).hexdigest()
        path = self.folder / f"frozen-{digest[:16]}.safetensors"
        self._files.add(path)
        if keys:
            metadata = {"backbone": self.identity, "images": json.dumps(keys)}
            with atomic_write(path) as temporary:
                save_file({"features": matrix}, temporary, metadata)

    def _read(self) -> None:
        for path in sorted(set(self.folder.glob("frozen-*.safetensors")) - self._files):
            self._files.add(path)
            try:
                open_regular(path).close()
                with safe_open(path, framework="pt") as file:
                    metadata = file.metadata() or {}
                    if metadata.get("backbone") != self.identity:
                        continue
                    keys, matrix = parse_json(metadata["images"]), file.get_tensor("features")
                    self._rows.update(zip(keys, matrix, strict=True))
            except DAMAGED:
                continue  # what it held is computed again
