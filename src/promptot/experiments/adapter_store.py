"""Adapters that several protocols need: trained once, kept, tested wherever they are asked for."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

from promptot.adaptation.student import PromptedModel
from promptot.backbones.backbone import Backbone
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError
from promptot.experiments.cells import VERSION, Cell
from promptot.recipes import describe
from promptot.runs.adapter import build_model, load_adapter, save_adapter
from promptot.runs.run import versions


class Trained(NamedTuple):
    """A model that was adapted, and what the training said of itself."""

    model: PromptedModel
    training: dict[str, float | None]
    seconds: float


class KeptAdapters:
    """Trained adapters in a folder, each under a hash of all that decides it.

    Cross-dataset, domain generalization and the few-shot cell of as many shots train the same
    model; the first of them trains it. Base-to-novel shares with nobody, so nothing is kept.

    Args:
        folder: where they go; it may be removed at any time.
        backbone: on the device to use.
    """

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder = folder
        self.backbone = backbone
        self._hashes: dict[str, str] = {}  # of training images, which all methods share

    def load(self, cell: Cell, train: ImageTask) -> Trained | None:
        """The model of a cell, if it was trained before; a damaged file counts as none."""
        if not self._keeps(cell):
            return None
        try:
            card, learned = load_adapter(self._place(cell, train))
            said = card.recipe["trained"]
            model = build_model(card, learned, self.backbone)
            return Trained(model, dict(said["training"]), float(said["seconds"]))
        except (PromptotError, KeyError, TypeError, ValueError):
            return None

    def save(self, cell: Cell, train: ImageTask, trained: Trained) -> None:
        """Keep the model of a cell.

        Raises:
            PromptotError: the folder can't be written to.
        """
        if not self._keeps(cell):
            return
        said: dict[str, Any] = {"training": trained.training, "seconds": trained.seconds}
        save_adapter(
            self._place(cell, train),
            trained.model.learned,
            self.backbone,
            trained.model.class_names,
            trained.model.template,
            template_mean=trained.model.template_mean,
            recipe={**describe(cell.method.recipe), "trained": said},
            versions=versions(),
        )

    def _keeps(self, cell: Cell) -> bool:
        return cell.method.learns and cell.trial.classes == "all" and cell.trial.place is not None

    def _hash(self, example: Example) -> str:
        if example.path not in self._hashes:
            self._hashes[example.path] = example.hash()
        return self._hashes[example.path]

    def _place(self, cell: Cell, train: ImageTask) -> Path:
        words = cell.method.words()
        tested = {name for part in cell.trial.parts.values() for name in part.class_names}
        decides = {
            "version": VERSION,
            "method": cell.method.values(),
            "template": cell.method.template(train),
            "seed": cell.seed,
            "class names": train.class_names,
            "images": [(self._hash(e), e.label) for e in (*train.train, *train.validation)],
            "words": words,
            "left out of the words": sorted(tested) if words else [],
            "backbone": self.backbone.identity().digest,
        }
        digest = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
        return self.folder / digest[:32]
