"""Writing the page of a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone
from promptot.data import Skipped, load_task
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.evaluation.predictions import read_tested
from promptot.reports import write_report
from promptot.runs.classifier import PathLike, load
from promptot.runs.evaluating import (
    Evaluation,
    Progress,
    evaluate_on,
    no_progress,
    retention_of,
    score_all,
)
from promptot.runs.manifest import MANIFEST, Manifest, malformed, read_manifest
from promptot.runs.report.run_page import Tested, report_data
from promptot.runs.run_folder import PREDICTIONS, REPORT
from promptot.training.training_log import Log


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
    folder = Path(run)
    page = folder / REPORT if out is None else Path(out)
    if page.is_dir():
        raise PromptotError(f"'{page}' is a folder.", fix="Give a file, such as page.html.")
    manifest = read_page_manifest(folder)
    classifier = load(run, backbone, pick_device(device), precision)
    if data is None and manifest.merged is not None:
        raise PromptotError(
            f"'{folder}' is a mean of runs, which was tested on nothing yet.",
            fix="Give a folder of images to test it on.",
        )
    if data is None:
        noted = manifest.task
        tasks = read_tested(folder / PREDICTIONS, noted.tested, noted.name, noted.first_template)
        found = score_all(classifier.model, tasks, workers, progress) if tasks else Evaluation({})
    else:
        task = load_task(data)
        found = evaluate_on(classifier, manifest, task, workers, progress, keep_features=True)
        manifest = manifest.change(task={"name": task.name})
    log = Log(folder)
    log.restore()
    retention = retention_of(classifier.model, found.tested, found.scores, workers)
    notes = [*found.notes, *left_out_notes(found.skipped)]
    if found.left_out:
        notes.append(f"{found.left_out} images were left out: the run was trained on them.")
    shown = Tested(classifier.model, manifest, log, found.tested, found.scores, retention, notes)
    return write_page(shown, page)


def read_page_manifest(folder: Path) -> Manifest:
    """The manifest of a run folder, if a page can be made of it.

    Raises:
        PromptotError: there is none, it is damaged, or its recipe is none that is known.
    """
    manifest = read_manifest(folder)
    try:
        _ = manifest.objective
    except ValueError:
        raise malformed(folder / MANIFEST) from None
    return manifest


def write_page(run: Tested, page: Path) -> Path:
    """Write the page of a run that was tested; gives its path."""
    write_report(report_data(run), page)
    return page


def left_out_notes(skipped: Sequence[Skipped], most: int = 10) -> list[str]:
    """Which images were left out, for a page."""
    notes = [f"'{item.path}' was left out: {item.reason}." for item in skipped[:most]]
    more = len(skipped) - most
    return [*notes, f"{more} more images were left out."] if more > 0 else notes
