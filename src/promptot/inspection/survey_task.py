"""What a data set is like, before anything is learned from it."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from statistics import median
from typing import Any

import torch

from promptot.adaptation.student import PromptedModel
from promptot.backbones import Backbone, load_backbone
from promptot.data import Example, ImageTask, Skipped, UnreadableImage, load_task
from promptot.data.catalog.drawings import has_own_images
from promptot.data.dividing import hold_out
from promptot.data.duplicates import Print, find_pairs, group, print_of
from promptot.data.name_warnings import name_warnings
from promptot.devices import pick_device
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.inspection.survey_probe import probe
from promptot.inspection.survey_result import SPLITS, ClassSummary, Duplicates, Survey, advise
from promptot.training.batches import evaluation_loader

Progress = Callable[[str, int, int], None]


def survey(
    data: Any,
    *,
    names: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
    template: str | None = None,
    keep_same_names: bool = False,
    backbone: str | Backbone = "bundled:tiny",
    test_share: float = 0.3,
    device: str = "auto",
    workers: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> Survey:
    """Read every image of a data set once, and test the frozen model on its test images.

    A linear probe of the frozen features is tested on the same images: what zero-shot lacks beside
    it is not in the features but in the names, the template or the pairing of the two towers.

    Where the data have no test split, the one is used that `fit` would hold out: what is said of
    leaks and of zero-shot accuracy is true of that run.

    Args:
        data, names, template, keep_same_names: see `load_task`.
        backbone: whose zero-shot accuracy to measure.
        test_share: see `promptot.fit`.
        device: see `pick_device`; it does not touch a loaded backbone.
        workers: processes that load images for the test.
        progress: called with what is being done, how much is done, and how much there is.

    Raises:
        PromptotError: with what to do about it.
    """
    whole = load_task(data, names=names, template=template, keep_same_names=keep_same_names)
    task = hold_out(whole, test_share)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device))
    examples = [(split, example) for split in SPLITS for example in getattr(task, split)]
    looks: list[_Look | Skipped] = []
    for look in _look_at([example for _, example in examples]):
        looks.append(look)
        progress("reading", len(looks), len(examples))
    readable = [
        (split, example, look)
        for (split, example), look in zip(examples, looks, strict=True)
        if isinstance(look, _Look)
    ]
    unreadable = tuple(look for look in looks if isinstance(look, Skipped))
    bad = {item.path for item in unreadable}
    scores = _zero_shot(task, backbone, bad, workers, progress)
    probed = None
    if scores is not None:
        train = tuple(example for example in task.train if example.path not in bad)
        probed = probe(replace(task, train=train), backbone, scores, workers,
                       partial(progress, "linear probe"))  # fmt: skip
    classes = _classes(task, bad, scores)
    short = sorted((min(look.size), look.size) for _, _, look in readable)
    side = backbone.preprocess.resolution
    duplicates = _duplicates(task, readable)
    shots, advice = advise(classes, scores, probed)
    return Survey(
        name=task.name,
        template=task.template,
        backbone=backbone.name,
        classes=classes,
        held_out=not whole.test and bool(task.test),
        sizes=_sizes(short),
        small=sum(length < side for length, _ in short),
        resolution=side,
        skipped=(*task.skipped, *unreadable),
        duplicates=duplicates,
        domains=dict(sorted(Counter(e.domain for e in task.examples if e.domain).items())),
        name_warnings=tuple(
            name_warnings(
                task.class_names,
                synonyms=task.synonyms,
                tokens=backbone.tokenizer.encode,
                template=task.template,
            )
        ),
        accuracy=None if scores is None else scores.teacher_accuracy,
        interval=None if scores is None else scores.teacher_interval,
        tested=0 if scores is None else len(scores.labels),
        probe=probed,
        own_images=has_own_images(example.path for _, example in examples),
        shots=shots,
        advice=tuple(advice),
        notes=task.notes,
    )


@dataclass(frozen=True, eq=False)
class _Look:
    """What is kept of an image after it was read."""

    size: tuple[int, int]
    sha256: str
    print: Print


def _look_at(examples: Sequence[Example]) -> Iterator[_Look | Skipped]:
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        yield from pool.map(_look, examples)


def _look(example: Example) -> _Look | Skipped:
    try:
        image = example.load()
        return _Look(image.size, example.hash(), print_of(image))
    except UnreadableImage as error:
        return Skipped(error.path, error.reason)


def _zero_shot(
    task: ImageTask, backbone: Backbone, bad: set[str], workers: int, progress: Progress
) -> Scores | None:
    """The frozen model on the test images, `indices` their places among the readable ones."""
    test = tuple(example for example in task.test if example.path not in bad)
    if not test:
        return None
    model = PromptedModel(backbone, None, task.class_names, task.template, synonyms=task.synonyms)
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress("zero-shot", done, len(test))

    try:
        loader = evaluation_loader(backbone, test, workers)
        return score(model, loader, count, keep_features=True)
    except NothingToScore:
        return None


def _classes(task: ImageTask, bad: set[str], scores: Scores | None) -> tuple[ClassSummary, ...]:
    counts = {
        split: Counter(e.label for e in getattr(task, split) if e.path not in bad)
        for split in SPLITS
    }
    found = [
        ClassSummary(
            name,
            tuple(task.synonyms.get(name, ())),
            train=counts["train"][label],
            validation=counts["validation"][label],
            test=counts["test"][label],
        )
        for label, name in enumerate(task.class_names)
    ]
    if scores is None:
        return tuple(found)
    answers = scores.teacher.argmax(dim=1)
    for label, summary in enumerate(found):
        given = answers[scores.labels == label]
        if len(given) == 0:
            continue
        wrong = given[given != label]
        most = None if len(wrong) == 0 else task.class_names[int(torch.mode(wrong).values)]
        share = float((given == label).float().mean())
        found[label] = replace(summary, zero_shot=round(share, 6), mistaken_for=most)
    return tuple(found)


def _sizes(short: list[tuple[int, tuple[int, int]]]) -> dict[str, tuple[int, int]]:
    if not short:
        return {}
    middle = tuple(int(median(size[axis] for _, size in short)) for axis in (0, 1))
    return {"smallest": short[0][1], "median": (middle[0], middle[1]), "largest": short[-1][1]}


def _duplicates(
    task: ImageTask, readable: Sequence[tuple[str, Example, _Look]]
) -> tuple[Duplicates, ...]:
    """Groups of images that show one picture, those that leak first."""
    groups = group(find_pairs([look.print for _, _, look in readable]))
    found = []
    for places in groups:
        members = [readable[place] for place in places]
        found.append(
            Duplicates(
                tuple(example.path for _, example, _ in members),
                tuple(task.class_names[example.label] for _, example, _ in members),
                tuple(split for split, _, _ in members),
                len({look.sha256 for _, _, look in members}) == 1,
            )
        )
    return tuple(sorted(found, key=lambda d: (not d.leaks, not d.contradicts, d.paths)))
