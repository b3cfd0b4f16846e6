"""A run: one training and what it leaves."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from promptot.adaptation.student import PromptedModel
from promptot.backbones import Backbone
from promptot.backbones.library_versions import versions
from promptot.data.task import Example, ImageTask, Skipped
from promptot.errors import PromptotError
from promptot.evaluation.predictions import write_predictions
from promptot.evaluation.retention import Retention
from promptot.evaluation.scoring import Scores
from promptot.runs.adapter import Adapter
from promptot.runs.classifier import Adapted, Classifier
from promptot.runs.draw import Classes, select_classes
from promptot.runs.learning import adapt, build_objective, trial_model, trial_step
from promptot.runs.manifest import MANIFEST, Manifest, read_manifest
from promptot.runs.report.run_page import Tested
from promptot.runs.reporting import left_out_notes, report, write_page
from promptot.runs.run_contents import RunContents
from promptot.runs.run_folder import ADAPTER, PREDICTIONS, REPORT, check_apart, writing
from promptot.training.training_log import Log

__all__ = [
    "ADAPTER",
    "MANIFEST",
    "PLAN_FIGURES",
    "Classes",
    "Run",
    "adapt",
    "build_objective",
    "check_apart",
    "select_classes",
    "trial_model",
    "trial_step",
    "versions",
]

PLAN_FIGURES = (
    "off_diagonal_mass",
    "plan_entropy",
    "vocabulary_off_diagonal_mass",
    "vocabulary_plan_entropy",
)
"""What is said of every run's transport plans, as means over its steps; null without a plan."""


@dataclass(frozen=True, eq=False)
class Run(Adapted):
    """A finished run, in memory; `save` writes it as a folder.

    Attributes:
        model: prompted with what was learned, over the classes it was trained on.
        task: with the images that were drawn.
        contents: what was learned, the manifest and the log, as a run folder holds them.
        scores: on the task's test images, by what was tested: "test", or "base" and "novel" (not
            "novel" where what was learned serves its own classes only).
        skipped: images that could not be read.
        seconds: of training.
        tested: the class names and test images of each part; empty of a run that was read from a
            folder and not tested again.
        retention: how far the model moved beyond these classes.
        folder: where it was written; None if it was not.
        was_complete: the folder held this run already, made with the same arguments, and it was
            to be resumed: it was read and tested again, and nothing was written.
    """

    model: PromptedModel
    task: ImageTask
    contents: RunContents
    scores: dict[str, Scores] = field(default_factory=dict)
    skipped: tuple[Skipped, ...] = ()
    seconds: float = 0.0
    tested: dict[str, ImageTask] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)
    folder: Path | None = None
    was_complete: bool = False

    @classmethod
    def from_pretrained(
        cls,
        folder: str | os.PathLike[str],
        backbone: Backbone | str | None = None,
        device: str | torch.device = "auto",
        precision: str = "fp32",
    ) -> Run:
        """A run from its folder; it is not tested again.

        Args:
            folder: that `fit` or `save` wrote.
            backbone, device, precision: see `promptot.load`.

        Raises:
            PromptotError: there is no run, it is damaged, or it belongs to another backbone.
        """
        manifest = read_manifest(Path(folder))
        contents = replace(RunContents.read(folder), manifest=manifest)
        model = Classifier.of(contents.adapter, backbone, device, precision).model
        seconds = manifest.results.seconds or 0.0
        task = _task_of(manifest)
        return cls(model, task, contents, seconds=seconds, folder=Path(folder))

    @property
    def adapter(self) -> Adapter:
        """What was learned, and its card."""
        return self.contents.adapter

    @property
    def manifest(self) -> Manifest:
        """What it was made with and what came of it."""
        assert self.contents.manifest is not None
        return self.contents.manifest

    @property
    def log(self) -> Log:
        """A record a step and an epoch."""
        return self.contents.log

    @property
    def classifier(self) -> Classifier:
        """The adapted model, ready to predict."""
        return Classifier(self.model, self.adapter.card)

    def save(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> Run:
        """Write it as a run folder, as `fit` with `out` does.

        Args:
            folder: where; it appears whole or not at all.
            overwrite: replace a run that is there already.

        Returns:
            the run, with its folder.

        Raises:
            PromptotError: the folder holds a run already, or can't be written.
        """
        with writing(Path(folder), overwrite) as work:
            self.write(work)
        return replace(self, folder=Path(folder))

    def write(self, work: Path) -> None:
        """Write all files into a working folder."""
        if self.tested:
            write_predictions(work / PREDICTIONS, self.tested, self.scores)
        self.contents.write(work)

    def report(self, out: str | os.PathLike[str] | None = None, *, workers: int = 0) -> Path:
        """Write its page.

        Args:
            out: the HTML file; by default `report.html` in its folder.
            workers: processes that load images, where it has to be tested again.

        Returns:
            the path of the page.

        Raises:
            PromptotError: it has no folder and `out` is not given, or can't be written.
        """
        if out is None and self.folder is None:
            raise PromptotError(
                "This run was not saved.", fix="Give the file: run.report('a.html')."
            )
        if not self.tested and self.folder is not None:
            return report(self.folder, out=out, backbone=self.model.backbone, workers=workers)
        page = Path(out) if out is not None else self.folder / REPORT  # type: ignore[operator]
        shown = Tested(
            self.model, self.manifest, self.log, self.tested, self.scores, self.retention,
            [*self.task.notes, *left_out_notes(self.skipped)],
        )  # fmt: skip
        return write_page(shown, page)


def _task_of(manifest: Manifest) -> ImageTask:
    """The training images of a run where they were, as its manifest lists them."""
    noted = manifest.task
    labels = {name: label for label, name in enumerate(noted.class_names)}
    return ImageTask(
        noted.name,
        tuple(noted.class_names),
        train=tuple(
            Example(shot.path, labels[shot.class_name])
            for shot in noted.shots
            if shot.class_name in labels
        ),
        template=noted.first_template,
        synonyms={name: tuple(others) for name, others in noted.synonyms.items()},
    )
