"""Adapters that several protocols need: trained once, kept, tested wherever they are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.backbones.library_versions import versions
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError
from promptot.experiments.cell_record import Training
from promptot.experiments.cells import VERSION, digest_of
from promptot.experiments.methods import Method
from promptot.recipes import describe
from promptot.runs.adapter import build_model, load_adapter, save_adapter


class Trained(NamedTuple):
    """A model that was adapted, and what the training said of itself."""

    model: Student
    training: Training
    seconds: float


class AdapterStore:
    """Trained adapters in a folder, each under a hash of all that decides it.

    Cross-dataset, domain generalization and the few-shot cell of as many shots train the same
    model; the first of them trains it.

    Args:
        folder: where they go; it may be removed at any time.
        backbone: on the device to use.
    """

    def __init__(self, folder: Path, backbone: Backbone) -> None:
        self.folder = folder
        self.backbone = backbone
        self._hashes: dict[str, str] = {}  # of training images, which all methods share

    def place(self, method: Method, seed: int, train: ImageTask, tested: Iterable[str]) -> Path:
        """Where the adapter of a method lies.

        Args:
            method, seed: that train it.
            train: the images that it learns from.
            tested: names of all classes of the test, which are no anchor words.
        """
        words = method.words()
        decides = {
            "version": VERSION,
            "method": method.values(),
            "template": method.template(train),
            "seed": seed,
            "class names": train.class_names,
            "images": [(self._hash(e), e.label) for e in (*train.train, *train.validation)],
            "words": words,
            "left out of the words": sorted(set(tested)) if words else [],
            "backbone": self.backbone.identity().digest,
        }
        return self.folder / digest_of(decides)[:32]

    def load(self, place: Path) -> Trained | None:
        """The model at a place; a damaged one counts as none."""
        try:
            card, learned = load_adapter(place)
            said = card.recipe["trained"]
            model = build_model(card, learned, self.backbone)
            return Trained(model, dict(said["training"]), float(said["seconds"]))
        except (PromptotError, KeyError, TypeError, ValueError):
            return None

    def save(self, place: Path, method: Method, trained: Trained) -> None:
        """Keep the model of a method.

        Raises:
            PromptotError: the folder can't be written to.
        """
        said: dict[str, Any] = {"training": trained.training, "seconds": trained.seconds}
        save_adapter(
            place,
            trained.model.learned,
            self.backbone,
            trained.model.class_names,
            trained.model.template,
            template_mean=trained.model.template_mean,
            recipe={**describe(method.recipe), "trained": said},
            versions=versions(),
        )

    def _hash(self, example: Example) -> str:
        if example.path not in self._hashes:
            self._hashes[example.path] = example.hash()
        return self._hashes[example.path]
