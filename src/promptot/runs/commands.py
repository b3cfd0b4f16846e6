"""The commands as functions: `fit` and `evaluate` on images wherever they are."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone, load_backbone
from promptot.data import Example, ImageTask, Skipped, load_task
from promptot.data.dividing import hold_out
from promptot.data.images.read_image import UnreadableImage
from promptot.data.loader import lost_workers_explained
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.evaluation.predictions import read_tested
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.files.reading import Unreadable, read_json
from promptot.recipes import Recipe, describe, load_recipe
from promptot.reports import write_report
from promptot.runs.classifier import Classifier, load
from promptot.runs.report.run_page import Tested, check_manifest, report_data
from promptot.runs.run import (
    Classes,
    Run,
    check_apart,
    retention_of,
    summarise_scores,
)
from promptot.runs.run import fit as fit_task
from promptot.runs.run_folder import MANIFEST, PREDICTIONS, REPORT, check_run_folder, is_complete
from promptot.runs.tracking.tracker import Tracking, open_trackers
from promptot.training.batches import evaluation_loader
from promptot.training.listener import Listener, Listeners
from promptot.training.training_log import Log

PathLike = str | os.PathLike[str]
Names = PathLike | Mapping[Any, Any]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def fit(
    data: Any,
    out: PathLike,
    *,
    names: Names | None = None,
    template: str | None = None,
    keep_same_names: bool = False,
    backbone: str | Backbone = "bundled:tiny",
    recipe: str | Recipe = "prompt-ot",
    shots: int | None = None,
    classes: Classes = "all",
    test_share: float = 0.3,
    seed: int = 1,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    report: bool = True,
    log: Sequence[str] = (),
    callbacks: Listener | None = None,
) -> Run:
    """Learn prompts from images, test them beside the frozen model, and write a run folder.

    Args:
        data: a folder of class folders (with or without train/val/test folders above), or anything
            else that `load_task` takes: an archive, a table, shards, data sets, arrays.
        out: the run folder.
        names: what the classes are called, and their synonyms; see `load_task`.
        template: the sentence that the frozen model reads, with `{}` for the name; by default the
            task's own, else the recipe's.
        keep_same_names: see `load_task`.
        backbone: a name (see `load_backbone`) or a loaded backbone.
        recipe: a name, a YAML file, or a loaded recipe.
        shots: images per class; by default the recipe's number.
        classes: "all", or one half of them: "base" or "novel".
        test_share: share of each class held out for testing if the data have no such split; which
            images that are depends on the data alone, not on the seed. A task is not divided.
        seed: of the shots, the start and the order of training.
        overrides: recipe values, such as "optim.lr=0.002".
        device: see `pick_device`; it and `precision` do not touch a loaded backbone.
        precision: see `load_backbone`.
        workers: processes that load images.
        overwrite, resume: what to do if the folder holds a run. One that is complete and was made
            with the same arguments may be resumed: it is returned, tested again.
        report: write `report.html` into the run folder too.
        log: trackers to tell beside the CSV files, which are always written: "tensorboard",
            "wandb", "mlflow". One that fails is named in a warning and never ends the run.
        callbacks: hears how it goes.

    Raises:
        PromptotError: with what to do about it.
    """
    if not isinstance(recipe, Recipe):
        extra = [] if shots is None else [f"data.shots={shots}"]
        recipe = load_recipe(os.fspath(recipe), [*overrides, *extra])
    task = load_task(data, names=names, template=template, keep_same_names=keep_same_names)
    if not isinstance(data, ImageTask):
        task = replace(task, template=task.own_template or recipe.data.template)
        if isinstance(data, str | os.PathLike):
            check_apart(Path(out), Path(data))
        task = hold_out(task, test_share)
    check_run_folder(Path(out), overwrite, resume)
    nothing_left = resume and is_complete(Path(out))
    tracking = Tracking(open_trackers(() if nothing_left else log, Path(out)))
    listener = Listeners(tracking, callbacks or Listener())
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)
    settings = {**describe(recipe), "seed": seed, "classes": classes, "backbone": backbone.name}
    listener.on_run_start(
        {**settings, "task": task.name, "precision": backbone.precision, "resumed": resume}
    )
    try:
        run = fit_task(
            task,
            Path(out),
            backbone,
            recipe,
            seed=seed,
            classes=classes,
            workers=workers,
            overwrite=overwrite,
            resume=resume,
            callbacks=listener,
        )
    except BaseException:
        listener.on_run_end({}, failed=True)
        raise
    listener.on_run_end(summarise_scores(run.scores), failed=False)
    if report and not (run.was_complete and (run.folder / REPORT).exists()):
        manifest = _read_manifest(run.folder)
        found = Tested(
            run.model,
            manifest,
            run.log,
            run.tested,
            run.scores,
            run.retention,
            [*run.task.notes, *_notes(run.skipped)],
        )
        write_report(report_data(found), run.folder / REPORT)
    return run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a run does on a folder.

    Attributes:
        scores: over all class names of the data under "all classes"; if some of them were not
            trained on, also over "trained classes" and over "other classes" alone; and for each
            domain, if the data tell several apart.
        skipped: images that could not be read.
        left_out: number of images left out because the run was trained on them; None if that is
            not known, for an adapter without its run's manifest.
        tested: the class names and images of each part.
        notes: what was taken for what, see `ImageTask`.
    """

    scores: dict[str, Scores]
    skipped: tuple[Skipped, ...]
    left_out: int | None
    tested: dict[str, ImageTask] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        return {
            "results": {name: result.as_json() for name, result in self.scores.items()},
            "left_out": self.left_out,
            "notes": list(self.notes),
            "skipped": [{"path": item.path, "reason": item.reason} for item in self.skipped],
        }


def evaluate(
    run: PathLike,
    data: Any,
    *,
    names: Names | None = None,
    keep_same_names: bool = False,
    backbone: str | Backbone | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Evaluation:
    """Test a run on images wherever they are: on the test split, or on all if there are no splits.

    `data`, `names` and `keep_same_names` are what `load_task` takes. Images that the run was
    trained on are left out: they are known by their bytes, so it does not matter where they lie by
    now. The class names need not be those of the training.

    Raises:
        PromptotError: with what to do about it.
    """
    classifier = load(run, backbone, pick_device(device), precision)
    task = load_task(data, names=names, keep_same_names=keep_same_names)
    return _evaluate(classifier, Path(run), task, workers, progress)


def report(
    run: PathLike,
    data: Any = None,
    *,
    out: PathLike | None = None,
    backbone: str | Backbone | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Path:
    """Write the page of a run again, from its own test images or from others.

    Args:
        run: a run folder that `fit` wrote.
        data: what to test on, as in `evaluate`; None tests on the images that the run was tested
            on when it was trained.
        out: the HTML file; by default `report.html` in the run folder.
        backbone, device, precision, workers: as in `evaluate`.

    Returns:
        the path of the page.

    Raises:
        PromptotError: with what to do about it.
    """
    folder = Path(run)
    page = folder / REPORT if out is None else Path(out)
    if page.is_dir():
        raise PromptotError(f"'{page}' is a folder.", fix="Give a file, such as page.html.")
    manifest = _read_manifest(folder)
    classifier = load(run, backbone, pick_device(device), precision)
    if data is None and "merged" in manifest:
        raise PromptotError(
            f"'{folder}' is a mean of runs, which was tested on nothing yet.",
            fix="Give a folder of images to test it on.",
        )
    if data is None:
        names = manifest["task"].get("tested", {})
        templates = manifest["task"]["template"]
        template = templates if isinstance(templates, str) else templates[0]
        tasks = read_tested(folder / PREDICTIONS, names, manifest["task"]["name"], template)
        found = _score(classifier, tasks, workers, progress) if tasks else Evaluation({}, (), None)
    else:
        task = load_task(data)
        found = _evaluate(classifier, folder, task, workers, progress, keep_features=True)
        manifest = {**manifest, "task": {**manifest["task"], "name": task.name}}
    log = Log(folder)
    log.restore()
    retention = retention_of(classifier.model, found.tested, found.scores, workers)
    notes = [*found.notes, *_notes(found.skipped)]
    if found.left_out:
        notes.append(f"{found.left_out} images were left out: the run was trained on them.")
    shown = Tested(classifier.model, manifest, log, found.tested, found.scores, retention, notes)
    write_report(report_data(shown), page)
    return page


def _evaluate(
    classifier: Classifier,
    run: Path,
    task: ImageTask,
    workers: int,
    progress: Progress,
    *,
    keep_features: bool = False,
) -> Evaluation:
    """`evaluate`, with the model loaded."""
    examples = task.test or (*task.train, *task.validation)
    trained = _trained_on(run)
    fresh = tuple(example for example in examples if not (trained and _is_in(example, trained)))
    if not fresh:
        raise PromptotError(
            f"The run was trained on every image of '{task.name}'.",
            fix="Evaluate on images that it has not seen.",
        )
    known = {name.casefold() for name in classifier.class_names}
    seen = [label for label, name in enumerate(task.class_names) if name.casefold() in known]
    other = [label for label in range(len(task.class_names)) if label not in set(seen)]
    whole = replace(task, train=(), validation=(), test=fresh)
    parts = {"all classes": whole}
    if seen and other:
        parts |= {"trained classes": whole.select(seen), "other classes": whole.select(other)}
    if len(whole.domains) > 1:
        parts |= {f"domain {domain}": whole.in_domain(domain) for domain in whole.domains}
    found = _score(classifier, parts, workers, progress, keep_features=keep_features)
    left_out = None if trained is None else len(examples) - len(fresh)
    return replace(found, left_out=left_out, notes=task.notes)


def _score(
    classifier: Classifier,
    parts: dict[str, ImageTask],
    workers: int,
    progress: Progress,
    *,
    keep_features: bool = True,
) -> Evaluation:
    """Score a classifier on the test images of each part whose names it can serve."""
    served = {
        name: part
        for name, part in parts.items()
        if part.test and classifier.model.serves(part.class_names)
    }
    if not served:
        whole = next(iter(parts.values()))
        classifier.model.for_classes(whole.class_names)  # says which name it can't serve

    scores: dict[str, Scores] = {}
    skipped: dict[str, Skipped] = {}
    for name, part in served.items():
        loader = evaluation_loader(classifier.model.backbone, part.test, workers)
        model = classifier.model.for_classes(part.class_names, synonyms=part.synonyms)
        done = 0

        def count(images: int, name: str = name, total: int = len(part.test)) -> None:
            nonlocal done
            done += images
            progress(name, done, total)

        with contextlib.suppress(NothingToScore), lost_workers_explained():
            scores[name] = score(model, loader, count, keep_features=keep_features)
        skipped |= {item.path: item for item in loader.skipped}
    if not scores:
        example = next(iter(skipped.values()))
        total = max(len(part.test) for part in served.values())
        raise PromptotError(
            f"None of the {total} images of '{next(iter(served.values())).name}' could be read. "
            f"For example '{example.path}': {example.reason}.",
            fix="Repair the images, or give a folder of others.",
        )
    tested = {name: served[name] for name in scores}
    return Evaluation(scores, tuple(skipped.values()), None, tested)


def _read_manifest(run: Path) -> Mapping[str, Any]:
    path = run / MANIFEST
    try:
        return check_manifest(read_json(path), path)
    except Unreadable as error:
        if error.missing:
            raise PromptotError(
                f"There is no '{MANIFEST}' in '{run}'.", fix="Give a run folder that `fit` wrote."
            ) from None
        raise PromptotError(f"'{path}' is damaged: {error}.", fix="Train the run again.") from error


def _notes(skipped: Sequence[Skipped], most: int = 10) -> list[str]:
    """Which images were left out, for a page."""
    notes = [f"'{item.path}' was left out: {item.reason}." for item in skipped[:most]]
    return (
        [*notes, f"{len(skipped) - most} more images were left out."]
        if (len(skipped) > most)
        else notes
    )


def _trained_on(run: Path) -> set[str] | None:
    """Hashes of a run's training images; None if there is no manifest to tell."""
    try:
        manifest = read_json(run / MANIFEST)
        return {str(shot["sha256"]) for shot in manifest["task"]["shots"]}
    except (Unreadable, KeyError, TypeError) as error:
        if isinstance(error, Unreadable) and error.missing:
            return None
        raise PromptotError(
            f"'{run / MANIFEST}' is damaged, so the images that were trained on are not known.",
            fix="Evaluate its adapter folder instead, on images that it has not seen.",
        ) from error


def _is_in(example: Example, hashes: set[str]) -> bool:
    try:
        return example.hash() in hashes
    except UnreadableImage:
        return False  # it will be named when its turn comes
