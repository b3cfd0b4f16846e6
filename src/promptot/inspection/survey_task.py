"""What a data set is like, before anything is learned from it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.data import Example, ImageTask, Skipped, UnreadableImage, load_task
from promptot.data.catalog.drawings import has_own_images
from promptot.data.dividing import hold_out
from promptot.data.duplicates import Appearance, appearance_of, find_pairs, group
from promptot.data.name_warnings import name_warnings
from promptot.data.task import Progress, no_progress
from promptot.devices import pick_device
from promptot.errors import use_class_names
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.inspection.survey_probe import probe
from promptot.inspection.survey_result import SPLITS, ClassSummary, Duplicates, Survey, advise
from promptot.training.batches import evaluation_loader


def survey(
    data: Any,
    *,
    class_names: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
    template: str | None = None,
    keep_same_names: bool = False,
    backbone: str | Backbone = "bundled:tiny",
    test_share: float = 0.3,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = no_progress,
    names: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
) -> Survey:
    """What a data set is like, before anything is learned from it.

    Every image is read once, and the frozen model is tested on the test images. A linear probe of
    the frozen features is tested on the same images: what zero-shot lacks beside it is not in the
    features but in the names, the template or the pairing of the two towers.

    Where the data have no test split, the one is used that `fit` would hold out: what is said of
    leaks and of zero-shot accuracy is true of that run.

    Args:
        data, class_names, template, keep_same_names: see `load_task`.
        backbone: whose zero-shot accuracy to measure.
        test_share: see `promptot.fit`.
        device: as in `fit`; it does not touch a loaded backbone.
        workers: processes that load images for the test.
        progress: called with what is being done, how much is done, and how much there is.
        names: the former name of `class_names`.

    Returns:
        images by class and split, sizes, unreadable images, duplicates, doubtful names, zero-shot
        accuracy and that of a linear probe, and advice; `as_json` gives all of it.

    Raises:
        PromptotError: with what to do about it.

    Example:
        >>> survey("bundled:food").shots  # doctest: +SKIP
        16
    """
    called = use_class_names(class_names, names)
    whole = load_task(data, class_names=called, template=template, keep_same_names=keep_same_names)
    task = hold_out(whole, test_share)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device))
    looks, unreadable = _look_at_all(task, progress)
    readable = _without(task, {item.path for item in unreadable})
    scores = _zero_shot(readable, backbone, workers, progress)
    probed = None
    if scores is not None:
        probed = probe(readable, backbone, scores, workers, partial(progress, "linear probe"))
    classes = _classes(readable, scores)
    shots, advice = advise(classes, scores, probed)
    warned = name_warnings(
        task.class_names,
        synonyms=task.synonyms,
        tokens=backbone.tokenizer.encode,
        template=task.template,
    )
    side = backbone.preprocess.resolution
    return Survey(
        name=task.name,
        template=task.template,
        backbone=backbone.name,
        classes=classes,
        held_out=not whole.test and bool(task.test),
        sizes=_sizes([look.size for look in looks]),
        small=sum(min(look.size) < side for look in looks),
        resolution=side,
        skipped=(*task.skipped, *unreadable),
        duplicates=_duplicates(task, looks),
        domains=dict(sorted(Counter(e.domain for e in task.examples if e.domain).items())),
        name_warnings=tuple(warned),
        accuracy=None if scores is None else scores.teacher_accuracy,
        interval=None if scores is None else scores.teacher_interval,
        tested=0 if scores is None else len(scores.labels),
        probe=probed,
        own_images=has_own_images(e.path for split in SPLITS for e in getattr(task, split)),
        shots=shots,
        advice=tuple(advice),
        notes=task.notes,
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """What is kept of an image after it was read."""

    split: str
    example: Example
    size: tuple[int, int]
    sha256: str
    print: Appearance


def _look_at_all(task: ImageTask, progress: Progress) -> tuple[list[_Look], list[Skipped]]:
    """Read every image once: what is kept of it, or why it can't be read."""
    examples = [(split, example) for split in SPLITS for example in getattr(task, split)]
    looks: list[_Look] = []
    unreadable: list[Skipped] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for done, look in enumerate(pool.map(_look, *zip(*examples, strict=True)), start=1):
            if isinstance(look, _Look):
                looks.append(look)
            else:
                unreadable.append(look)
            progress("reading", done, len(examples))
    return looks, unreadable


def _without(task: ImageTask, paths: set[str]) -> ImageTask:
    """The task without some of its images."""
    train, validation, test = (
        tuple(e for e in getattr(task, split) if e.path not in paths) for split in SPLITS
    )
    return replace(task, train=train, validation=validation, test=test)


def _look(split: str, example: Example) -> _Look | Skipped:
    try:
        image = example.load()
        return _Look(split, example, image.size, example.hash(), appearance_of(image))
    except UnreadableImage as error:
        return Skipped(error.path, error.reason)


def _zero_shot(
    task: ImageTask, backbone: Backbone, workers: int, progress: Progress
) -> Scores | None:
    """The frozen model on the test images, all of them readable; None without any."""
    if not task.test:
        return None
    model = Student(backbone, None, task.class_names, task.template, synonyms=task.synonyms)
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress("zero-shot", done, len(task.test))

    try:
        loader = evaluation_loader(backbone, task.test, workers)
        return score(model, loader, count, keep_features=True)
    except NothingToScore:
        return None


def _classes(task: ImageTask, scores: Scores | None) -> tuple[ClassSummary, ...]:
    """How many readable images each class has, and how the frozen model does on it."""
    counts = {split: Counter(e.label for e in getattr(task, split)) for split in SPLITS}
    answers = None if scores is None else scores.teacher.argmax(dim=1)
    summaries = []
    for label, name in enumerate(task.class_names):
        share = most = None
        if scores is not None and answers is not None and (scores.labels == label).any():
            given = answers[scores.labels == label]
            wrong = given[given != label]
            most = task.class_names[int(torch.mode(wrong).values)] if len(wrong) else None
            share = round(float((given == label).float().mean()), 6)
        images = {split: counts[split][label] for split in SPLITS}
        synonyms = tuple(task.synonyms.get(name, ()))
        summaries.append(ClassSummary(name, synonyms, **images, zero_shot=share, mistaken_for=most))
    return tuple(summaries)


def _sizes(sizes: Sequence[tuple[int, int]]) -> dict[str, tuple[int, int]]:
    """The smallest, the median and the largest by the shorter side."""
    if not sizes:
        return {}
    ordered = sorted(sizes, key=lambda size: (min(size), size))
    width, height = (int(median(side)) for side in zip(*sizes, strict=True))
    return {"smallest": ordered[0], "median": (width, height), "largest": ordered[-1]}


def _duplicates(task: ImageTask, looks: Sequence[_Look]) -> tuple[Duplicates, ...]:
    """Groups of images that show one picture, those that leak first."""
    groups = [
        [looks[place] for place in places]
        for places in group(find_pairs([look.print for look in looks]))
    ]
    duplicates = [
        Duplicates(
            paths=tuple(look.example.path for look in looks),
            classes=tuple(task.class_names[look.example.label] for look in looks),
            splits=tuple(look.split for look in looks),
            exact=len({look.sha256 for look in looks}) == 1,
        )
        for looks in groups
    ]
    return tuple(sorted(duplicates, key=lambda d: (not d.leaks, not d.contradicts, d.paths)))
