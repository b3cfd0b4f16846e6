"""Testing a model on images with labels: accuracy beside the frozen model, and retention."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import Example, ImageTask, Skipped, load_task
from promptot.data.catalog.drawings import load_bundled_sample
from promptot.data.images.read_image import UnreadableImage
from promptot.data.loader import lost_workers_explained
from promptot.data.task import Progress, no_progress
from promptot.errors import PromptotError, use_class_names
from promptot.evaluation.retention import Retention, measure_retention
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.files.reading import PathLike
from promptot.runs.classifier import Adapted, Classifier, classifier_of
from promptot.runs.manifest import MANIFEST, Manifest, find_manifest
from promptot.training.batches import evaluation_loader

Names = PathLike | Mapping[Any, Any]

OTHER_DRAWINGS = 160
"""Drawings that a run on a bundled model is tested on for what it still knows."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a run does on images with labels.

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
    skipped: tuple[Skipped, ...] = ()
    left_out: int | None = None
    tested: dict[str, ImageTask] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """What `promptot evaluate --json` writes."""
        return {
            "results": {name: result.as_json() for name, result in self.scores.items()},
            "left_out": self.left_out,
            "notes": list(self.notes),
            "skipped": [asdict(item) for item in self.skipped],
        }


def evaluate(
    run: PathLike | Adapted,
    data: Any,
    *,
    class_names: Names | None = None,
    keep_same_names: bool = False,
    backbone: str | Backbone | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Progress = no_progress,
    names: Names | None = None,
) -> Evaluation:
    """Test a run on images wherever they are: on the test split, or on all if there are no splits.

    Images that the run was trained on are left out: they are known by their bytes, so it does not
    matter where they lie by now. The class names need not be those of the training.

    Args:
        run: a run folder that `fit` wrote, its adapter folder, "hf-hub:user/name", a `Run` or a
            `Classifier`.
        data, keep_same_names: see `load_task`.
        class_names: what the classes of the data are called; see `load_task`.
        backbone: where the adapter belongs; by default loaded by the name on its card.
        device: as in `fit`.
        precision: see `load_backbone`.
        workers: processes that load images.
        progress: called with what is being done, how much is done, and how much there is.
        names: the former name of `class_names`.

    Raises:
        PromptotError: with what to do about it.
    """
    classifier = classifier_of(run, backbone, device, precision)
    called = use_class_names(class_names, names)
    task = load_task(data, class_names=called, keep_same_names=keep_same_names)
    return evaluate_on(classifier, manifest_of(run), task, workers, progress)


def manifest_of(run: PathLike | Adapted) -> Manifest | None:
    """The manifest that tells what a run was trained on; None if there is none.

    Raises:
        PromptotError: it is damaged.
    """
    if isinstance(run, Adapted):
        return run.manifest
    try:
        return find_manifest(Path(run))
    except PromptotError as error:
        raise PromptotError(
            f"'{Path(run) / MANIFEST}' is damaged, so the images that were trained on are not "
            "known.",
            fix="Evaluate its adapter folder instead, on images that it has not seen.",
        ) from error


def evaluate_on(
    classifier: Classifier,
    manifest: Manifest | None,
    task: ImageTask,
    workers: int,
    progress: Progress,
    *,
    keep_features: bool = False,
) -> Evaluation:
    """`evaluate`, with everything loaded.

    Raises:
        PromptotError: every image was trained on, or none can be read.
    """
    examples = task.test or (*task.train, *task.validation)
    trained = set() if manifest is None else {shot.sha256 for shot in manifest.task.shots}
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
    found = score_all(classifier.model, parts, workers, progress, keep_features=keep_features)
    left_out = None if manifest is None else len(examples) - len(fresh)
    return replace(found, left_out=left_out, notes=task.notes)


def score_all(
    model: Student,
    parts: Mapping[str, ImageTask],
    workers: int,
    progress: Progress,
    *,
    keep_features: bool = True,
) -> Evaluation:
    """`score_parts`, where something has to be tested.

    Raises:
        PromptotError: no part can be served, or no image of them can be read.
    """
    first = next(iter(parts.values()))
    if not any(part.test and model.serves(part.class_names) for part in parts.values()):
        model.for_classes(first.class_names)  # says which name it can't serve
    found = score_parts(model, parts, workers, progress, keep_features=keep_features)
    if not found.scores:
        total = max(len(part.test) for part in found.tested.values())
        name = next(iter(found.tested.values())).name
        raise PromptotError(
            f"None of the {total} images of '{name}' could be read. For example "
            f"'{found.skipped[0].path}': {found.skipped[0].reason}.",
            fix="Repair the images, or give a folder of others.",
        )
    return replace(found, tested={name: found.tested[name] for name in found.scores})


def score_parts(
    model: Student,
    parts: Mapping[str, ImageTask],
    workers: int = 0,
    progress: Progress = no_progress,
    *,
    keep_features: bool = True,
) -> Evaluation:
    """Score a model on the test images of each part whose names it can serve.

    Returns:
        `scores` of the parts of which an image could be read; `tested` has all that were tried.
    """
    scores: dict[str, Scores] = {}
    tested: dict[str, ImageTask] = {}
    skipped: dict[str, Skipped] = {}
    for name, part in parts.items():
        if not part.test or not model.serves(part.class_names):
            continue
        tested[name] = part
        loader = evaluation_loader(model.backbone, part.test, workers)
        other = model.for_classes(part.class_names, synonyms=part.synonyms)
        done = 0

        def count(images: int, name: str = name, total: int = len(part.test)) -> None:
            nonlocal done
            done += images
            progress(name, done, total)

        # `skipped` names what could not be read
        with contextlib.suppress(NothingToScore), lost_workers_explained():
            scores[name] = score(other, loader, count, keep_features=keep_features)
        skipped |= {item.path: item for item in loader.skipped}
    return Evaluation(scores, tuple(skipped.values()), None, tested)


def retention_of(
    model: Student,
    tested: Mapping[str, ImageTask],
    scores: Mapping[str, Scores],
    workers: int = 0,
) -> Retention:
    """How far a model moved beyond the classes that it was tested on.

    A bundled model is also tested on drawings of other things, because these are at hand.

    Args:
        tested: the class names of each part.
        scores: of each part, with features.
    """
    names = {name: part.class_names for name, part in tested.items()}
    others = None
    if model.backbone.name.startswith("bundled:"):
        known = [*model.class_names, *(name for own in names.values() for name in own)]
        drawings = load_bundled_sample(known, OTHER_DRAWINGS)
        if drawings.test and model.serves(drawings.class_names):
            loader = evaluation_loader(model.backbone, drawings.test, workers)
            others = score(model.for_classes(drawings.class_names), loader)
    return measure_retention(model, scores, names, others=others)


def summarise_scores(scores: Mapping[str, Scores]) -> dict[str, float]:
    """Accuracies of the adapted and the frozen model, flat."""
    flat = {}
    for name, result in scores.items():
        flat[f"{name}_accuracy"] = round(result.student_accuracy, 6)
        flat[f"{name}_zero_shot_accuracy"] = round(result.teacher_accuracy, 6)
    return flat


def _is_in(example: Example, hashes: set[str]) -> bool:
    try:
        return example.hash() in hashes
    except UnreadableImage:
        return False  # it will be named when its turn comes
