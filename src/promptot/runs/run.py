"""A run: one training and what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import Example, ImageTask, Skipped, load_task
from promptot.data.task import Progress, no_progress
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.evaluation.predictions import read_tested, write_predictions
from promptot.evaluation.retention import Retention
from promptot.evaluation.scoring import Scores
from promptot.files.reading import PathLike, read_bytes, reading_errors
from promptot.files.writing import write_bytes
from promptot.reports import write_report
from promptot.runs.adapter import Adapter
from promptot.runs.classifier import Adapted, Classifier
from promptot.runs.evaluating import (
    Evaluation,
    evaluate_on,
    retention_of,
    score_all,
)
from promptot.runs.manifest import Manifest, read_manifest
from promptot.runs.report.run_page import Tested, report_data
from promptot.runs.run_contents import RunContents
from promptot.runs.run_folder import PREDICTIONS, REPORT, writing
from promptot.training.training_log import Log

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

    model: Student
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
        folder: PathLike,
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
        contents = RunContents.read(folder, manifest)
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

    @cached_property
    def classifier(self) -> Classifier:
        """The adapted model, ready to predict."""
        return Classifier(self.model, self.adapter.card)

    def save(self, folder: PathLike, *, overwrite: bool = False) -> Run:
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
        elif self.folder is not None and (self.folder / PREDICTIONS).is_file():
            with reading_errors(f"The answers in '{self.folder}' can't be read", "Copy it again."):
                write_bytes(work / PREDICTIONS, read_bytes(self.folder / PREDICTIONS))
        self.contents.write(work)

    def report(
        self,
        data: Any = None,
        *,
        out: PathLike | None = None,
        workers: int = 0,
        progress: Progress = no_progress,
    ) -> Path:
        """Write its page, from its own test images or from others.

        Args:
            data: what to test on, as in `promptot.evaluate`; None is what it was tested on when it
                was trained.
            out: the HTML file; by default `report.html` in its folder.
            workers, progress: as in `promptot.evaluate`, where it has to be tested again.

        Returns:
            the path of the page.

        Raises:
            PromptotError: with what to do about it.
        """
        if out is None and self.folder is None:
            raise PromptotError(
                "This run was not saved.", fix="Name the file: report(out='a.html')."
            )
        page = Path(out) if out is not None else Path(self.folder or "", REPORT)
        if page.is_dir():
            raise PromptotError(f"'{page}' is a folder.", fix="Give a file, such as page.html.")
        _ = self.manifest.objective, self.log  # what is damaged is said before anything is tested
        run, found = self, Evaluation(self.scores, self.skipped, None, self.tested, self.task.notes)
        if data is not None or not self.tested:
            run, found = self._test_again(data, workers, progress)
        notes = [*found.notes, *_left_out_notes(found.skipped)]
        if found.left_out:
            notes.append(f"{found.left_out} images were left out: the run was trained on them.")
        shown = Tested(
            run.model, run.manifest, run.log, found.tested, found.scores, run.retention, notes
        )
        write_report(report_data(shown), page)
        return page

    def _test_again(self, data: Any, workers: int, progress: Progress) -> tuple[Run, Evaluation]:
        """Its test on other images, or on those that its folder names, and what it says of it."""
        manifest, noted, folder = self.manifest, self.manifest.task, self.folder or Path()
        if data is None and manifest.merged is not None:
            raise PromptotError(
                f"'{folder}' is a mean of runs, which was tested on nothing yet.",
                fix="Give a folder of images to test it on.",
            )
        if data is None:
            parts = read_tested(
                folder / PREDICTIONS, noted.tested, noted.name, noted.first_template
            )
            found = Evaluation({})
            if parts:
                found = score_all(self.model, parts, workers, progress)
        else:
            task = load_task(data)
            found = evaluate_on(
                self.classifier, manifest, task, workers, progress, keep_features=True
            )
            manifest = manifest.change(task={"name": task.name})
        retention = retention_of(self.model, found.tested, found.scores, workers)
        contents = replace(self.contents, manifest=manifest)
        return replace(self, contents=contents, retention=retention), found


def report(
    run: PathLike,
    data: Any = None,
    *,
    out: PathLike | None = None,
    backbone: str | Backbone | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Progress = no_progress,
) -> Path:
    """Write the page of a run again, from its own test images or from others.

    Args:
        run: a run folder that `fit` wrote.
        data: what to test on, as in `evaluate`; None tests on the images that the run was tested
            on when it was trained.
        out: the HTML file; by default `report.html` in the run folder.
        backbone, device, precision, workers, progress: as in `evaluate`.

    Returns:
        the path of the page.

    Raises:
        PromptotError: with what to do about it.
    """
    read = Run.from_pretrained(run, backbone, pick_device(device), precision)
    return read.report(data, out=out, workers=workers, progress=progress)


def _left_out_notes(skipped: Sequence[Skipped], most: int = 10) -> list[str]:
    """Which images were left out, for a page."""
    notes = [f"'{item.path}' was left out: {item.reason}." for item in skipped[:most]]
    more = len(skipped) - most
    return [*notes, f"{more} more images were left out."] if more > 0 else notes


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
