"""Cells of a benchmark: one method, trained and tested once, known by a hash of what decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from promptot.backbones.backbone import Backbone
from promptot.protocols.methods import Method
from promptot.protocols.trials import Split, Trial
from promptot.tasks.containers import split_place
from promptot.tasks.dataset import Example

VERSION = 1
"""Raise it when a change to promptot makes cells of before incomparable."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One method on one trial with one seed.

    Attributes:
        key: 64 hex digits; what makes no difference to the result (label, place of the images on
            the disk, other cells) does not enter.
        method: with the trial's shots in its recipe.
    """

    key: str
    protocol: str
    trial: Trial
    method: Method
    seed: int
    split: Split


def make_cells(
    protocol: str,
    trials: Iterable[Trial],
    methods: Iterable[Method],
    seeds: Iterable[int],
    split: Split,
    backbone: Backbone,
) -> list[Cell]:
    """All cells, ordered by trial and seed: methods on the same images follow each other."""
    methods, seeds = list(methods), list(seeds)
    cells = []
    for trial in trials:
        images = fingerprint(trial)
        here = [method.at(trial.task, trial.shots) for method in methods]
        for seed in seeds:
            for method in here:
                decides = {
                    "version": VERSION,
                    "protocol": protocol,
                    "task": trial.task,
                    "images": images,
                    "method": method.values(),
                    "words": method.words(),
                    "seed": seed,
                    "split": split,
                    "backbone": backbone.weight_hash(),
                    "precision": backbone.precision,
                }
                if seed in trial.lists:
                    decides["shot list"] = trial.lists[seed].digest
                key = hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()
                cells.append(Cell(key, protocol, trial, method, seed, split))
    return cells


def fingerprint(trial: Trial) -> str:
    """A hash of a trial's class names, labels and images, each by its last two names and size."""
    if trial.digest is not None:
        return trial.digest
    pool = trial.pool
    lists: dict[str, tuple[Iterable[Example], tuple[str, ...]]] = {
        "train": (pool.train, pool.class_names),
        "validation": (pool.validation, pool.class_names),
        **{f"part {name}": (part.test, part.class_names) for name, part in trial.parts.items()},
    }
    digest = hashlib.sha256(trial.classes.encode())
    for task in (pool, *trial.parts.values()):
        if task.own_template or task.synonyms:  # others keep the keys that they had before
            digest.update(json.dumps([task.own_template, dict(task.synonyms)]).encode())
    for name, (examples, class_names) in lists.items():
        digest.update(json.dumps([name, class_names]).encode())
        for example in examples:
            known = example.hash() if example.held else image_name(example.path)
            digest.update(f"{known} {example.label}\n".encode("utf8", "replace"))
    return digest.hexdigest()


@cache
def image_name(path: str) -> str:
    """The end of an image's path and its size (that of the archive for a member of one)."""
    holder, member = split_place(path)
    file = Path(holder)
    names = member or "/".join(file.parts[-2:])
    return f"{names} {_size(file)}"


@cache
def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return -1  # whoever reads it will say what is wrong
