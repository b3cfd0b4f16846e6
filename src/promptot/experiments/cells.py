"""Cells of a benchmark: one method, trained and tested once, known by a hash of what decides it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from promptot.backbones.backbone import Backbone
from promptot.data.images.fingerprint import ImageIdentities
from promptot.data.task import Example
from promptot.experiments.methods import Method
from promptot.experiments.scenarios import Scenario, Split, Unit

VERSION = 2
"""Raise it when a change to promptot makes cells of before incomparable. 1 knew the backbone by its
weights alone, and an image by its name and size."""


@dataclass(frozen=True, eq=False)
class Cell:
    """One method on one task with so many shots and one seed, as a small picklable description.

    Its images are found again through the scenario of its `unit`, which is known by `images`.

    Attributes:
        key: 64 hex digits; what makes no difference to the result (label, place of the images on
            the disk, other cells) does not enter.
        protocol, task, shots, seed, split: as in tables.
        images: what the scenario's images are known by, see `fingerprint`.
        method: with the cell's shots and settings in its recipe.
    """

    key: str
    protocol: str
    task: str
    shots: int
    seed: int
    split: Split
    images: str
    method: Method

    @property
    def unit(self) -> Unit:
        """The scenario that it belongs to."""
        return self.task, self.shots


def make_cells(
    protocol: str,
    scenarios: Iterable[Scenario],
    methods: Iterable[Method],
    seeds: Iterable[int],
    split: Split,
    backbone: Backbone,
) -> list[Cell]:
    """All cells, ordered by scenario and seed: methods on the same images follow each other."""
    methods, seeds = list(methods), list(seeds)
    cells = []
    prints = Fingerprints()
    identity = backbone.identity().digest
    for scenario in scenarios:
        images = fingerprint(scenario, prints)
        here = [method.at(scenario.task, scenario.shots) for method in methods]
        for seed in seeds:
            shots = _shots(scenario, seed, prints)
            for method in here:
                decides: dict[str, Any] = {
                    "version": VERSION,
                    "protocol": protocol,
                    "task": scenario.task,
                    "images": images,
                    "method": method.values(),
                    "words": method.words(),
                    "seed": seed,
                    "split": split,
                    "backbone": identity,
                }
                if shots is not None:
                    decides["shots"] = shots
                if seed in scenario.lists:
                    decides["shot list"] = scenario.lists[seed].digest
                key = digest_of(decides)
                cells.append(Cell(key, protocol, *scenario.unit, seed, split, images, method))
    return cells


def digest_of(decides: object) -> str:
    """64 hex digits of plain values."""
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()


class Fingerprints:
    """Hashes of lists of images, each list looked at once; for one pass over the scenarios."""

    def __init__(self) -> None:
        self._looks = ImageIdentities()
        self._known: dict[tuple[int, bool], tuple[Sequence[Example], str]] = {}

    def of(self, examples: Sequence[Example], *, published: bool = False) -> str:
        """What a list of images and labels is known by.

        Args:
            examples: the images.
            published: they are a public data set's, which everybody fetches anew: their times say
                nothing, see `Fingerprint.published`.
        """
        key = id(examples), published
        if key not in self._known:
            digest = hashlib.sha256()
            for example in examples:
                print_ = example.fingerprint(self._looks)
                known = print_.published if published else print_.anywhere
                digest.update(f"{known} {example.label}\n".encode())
            self._known[key] = examples, digest.hexdigest()  # kept alive, as its id is the key
        return self._known[key][1]


def fingerprint(scenario: Scenario, prints: Fingerprints | None = None) -> str:
    """A hash of a scenario's class names, labels and images.

    Of a public data set, where the training images may be more than a million, names and labels of
    all images count, and beside them the tested images as they are; `make_cells` adds the shots.
    """
    prints = prints or Fingerprints()
    digest = hashlib.sha256(scenario.classes.encode())
    if scenario.digest is not None:
        digest.update(scenario.digest.encode())
        for name, part in scenario.parts.items():
            known = [name, part.class_names, prints.of(part.test, published=True)]
            digest.update(json.dumps(known).encode())
        return digest.hexdigest()
    pool = scenario.pool
    lists: dict[str, tuple[Sequence[Example], tuple[str, ...]]] = {
        "train": (pool.train, pool.class_names),
        "validation": (pool.validation, pool.class_names),
        **{f"part {name}": (part.test, part.class_names) for name, part in scenario.parts.items()},
    }
    for task in (pool, *scenario.parts.values()):
        digest.update(json.dumps([task.own_template, dict(task.synonyms)]).encode())
    for name, (examples, class_names) in lists.items():
        digest.update(json.dumps([name, class_names, prints.of(examples)]).encode())
    return digest.hexdigest()


def _shots(scenario: Scenario, seed: int, prints: Fingerprints) -> str | None:
    """The images that a seed draws from a public data set; None of other tasks, which `fingerprint`
    knows in full."""
    if scenario.digest is None:
        return None
    if seed in scenario.lists and scenario.place is not None:
        listed = scenario.lists[seed]
        rows = (*listed.train, *listed.validation)
        return prints.of(
            [Example(f"{scenario.place}/{row.path}", row.label) for row in rows], published=True
        )
    drawn = scenario.pool.few_shot(scenario.shots, seed)
    return prints.of((*drawn.train, *drawn.validation), published=True)
