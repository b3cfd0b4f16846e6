"""The tasks of a benchmark: what is learnt from, and what is tested after it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from promptot.data.catalog.drawings import (
    DRAWINGS,
    UNSEEN,
    list_groups,
    load_bundled,
    load_bundled_others,
)
from promptot.data.dividing import split_examples
from promptot.data.readers import BUNDLED, load_task
from promptot.data.shot_lists import ShotList, replay
from promptot.data.shots import choose_shots
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError, nearest
from promptot.runs.draw import Classes

Split = Literal["test", "validation"]
Shares = tuple[float, float, float]
Unit = tuple[str, int]
"""A task's name and its shots."""

SPLIT: Shares = (0.5, 0.2, 0.3)
"""Training, validation and test share of each class of a task without splits of its own."""
RETENTION = "retention"
"""The part that tests what else a model should still know."""


@dataclass(frozen=True, eq=False)
class Scenario:
    """One task of a protocol.

    Attributes:
        task: its name in tables.
        pool: what the shots are drawn from, with all its classes.
        classes: which of these are trained on.
        parts: what is tested, by name; the images are each one's `test`.
        shots: images per class.
        place: the folder that holds a public data set, whose shot lists can be replayed.
        listed_from: the folder that the paths of other tasks' shot lists start from.
        digest: what the pool and the parts are known by, where that is not found out file by file.
        lists: seed -> the shot list to use instead of a draw.
    """

    task: str
    pool: ImageTask
    classes: Classes
    parts: Mapping[str, ImageTask]
    shots: int
    place: Path | None = None
    digest: str | None = None
    lists: Mapping[int, ShotList] = field(default_factory=dict)
    listed_from: Path = Path()

    @property
    def unit(self) -> Unit:
        """What tells it from the other scenarios."""
        return self.task, self.shots

    def draw(self, seed: int) -> ImageTask:
        """The pool with this seed's shots, all classes: a list's, or drawn.

        Raises:
            PromptotError: a class has no readable image, or a list can't be replayed.
        """
        if seed in self.lists:
            assert self.place is not None
            return replay(self.lists[seed], self.pool, self.place)
        return choose_shots(self.pool, self.shots, seed)


@dataclass(frozen=True, eq=False)
class Source:
    """A task that was asked for, and what else a model should still know after training on it.

    Attributes:
        text: how it was asked for.
        name, task: the task.
        others: what else the model should still know.
        group: of the bundled drawings.
        place, digest: of a public data set, see `Scenario`.
        listed_from: see `Scenario`.
    """

    text: str
    name: str
    task: ImageTask
    others: ImageTask | None
    group: str | None
    place: Path | None = None
    digest: str | None = None
    listed_from: Path = Path()

    def retention(self, split: Split) -> dict[str, ImageTask]:
        """What else a model should still know after training on it, as a part, if anything."""
        return {} if self.others is None else {RETENTION: tested_on(self.others, split)}

    def scenarios(
        self,
        pool: ImageTask,
        classes: Classes,
        parts: Mapping[str, ImageTask],
        shots: Sequence[int],
        tested: Sequence[Source] = (),
    ) -> list[Scenario]:
        """One scenario for each number of shots.

        Args:
            pool, classes, parts: of the scenarios.
            tested: the other sources that the parts are made of.
        """
        digest = None
        if self.digest is not None:
            digests = [source.digest for source in (self, *tested)]
            sizes = [[name, len(part.class_names), len(part.test)] for name, part in parts.items()]
            decides = json.dumps([digests, classes, sizes])
            digest = hashlib.sha256(decides.encode()).hexdigest()
        return [
            Scenario(
                self.name,
                pool,
                classes,
                parts,
                k,
                self.place,
                digest,
                listed_from=self.place or self.listed_from,
            )
            for k in shots
        ]


def load_sources(texts: Sequence[str], shares: Shares = SPLIT) -> list[Source]:
    """Read "bundled:<group>" and whatever else `load_task` takes.

    A group's `others` are all other bundled groups but `unseen`; those of other tasks are the other
    tasks that were asked for. Tasks without splits are divided once and for all.

    Args:
        texts: nothing stands for all bundled groups but `unseen`.
        shares: of training, validation and test in each class of a task without splits.

    Raises:
        PromptotError: a task can't be read, or two tasks have one name.
    """
    texts = list(texts) or [f"{BUNDLED}{group}" for group in list_groups() if group != UNSEEN]
    tasks = [_load(text, shares) for text in texts]
    names = [task.name for task in tasks]
    doubled = next((name for name in names if names.count(name) > 1), None)
    if doubled is not None:
        raise PromptotError(
            f"Two tasks are called '{doubled}'.", fix="Name each once; rename one of two folders."
        )
    sources = []
    for text, task in zip(texts, tasks, strict=True):
        if text.startswith(BUNDLED):
            drawings = load_bundled_others(task.name)
            sources.append(Source(text, task.name, task, drawings, task.name, listed_from=DRAWINGS))
        else:
            rest = [other for other in tasks if other is not task]
            others = merge(rest, task.class_names)
            own = Path(text) if Path(text).is_dir() else Path(text).parent
            sources.append(Source(text, task.name, task, others, None, listed_from=own))
    return sources


def merge(tasks: Sequence[ImageTask], without: Sequence[str] = ()) -> ImageTask | None:
    """The validation and test images of several tasks among all their names.

    A name that several tasks have (in whatever case) is one class; classes called as one of
    `without` are left out.

    Returns:
        the merged task, None where nothing is left.

    Example:
        >>> pets = ImageTask("pets", ("cat", "dog"), test=(Example("c", 0), Example("d", 1)))
        >>> zoo = ImageTask("zoo", ("Cat", "owl"), test=(Example("x", 0), Example("o", 1)))
        >>> merged = merge([pets, zoo], without=["dog"])
        >>> merged.class_names, [example.label for example in merged.test]
        (('cat', 'owl'), [0, 0, 1])
    """
    left_out = {name.casefold() for name in without}
    labels: dict[str, int] = {}
    names: list[str] = []
    for task in tasks:
        for name in task.class_names:
            if name.casefold() not in left_out | labels.keys():
                labels[name.casefold()] = len(names)
                names.append(name)
    if not names:
        return None

    def examples(split: Split) -> tuple[Example, ...]:
        return tuple(
            replace(example, label=labels[name])
            for task in tasks
            for example in getattr(task, split)
            if (name := task.class_names[example.label].casefold()) in labels
        )

    return ImageTask(
        name="others",
        class_names=tuple(names),
        validation=examples("validation"),
        test=examples("test"),
        synonyms={name: others for task in tasks for name, others in task.synonyms.items()},
    )


def _load(text: str, shares: Shares) -> ImageTask:
    if text.startswith(BUNDLED):
        return load_bundled(text.removeprefix(BUNDLED))
    task = split_examples(load_task(text), seed=0, fractions=shares)
    return replace(task, name=Path(text).resolve().name) if Path(text).is_dir() else task


def pick_sources(sources: Sequence[Source], trained: Sequence[str]) -> list[Source]:
    """Those to train on: all, or the ones named (as they were asked for, or by their name)."""
    by_name = {source.name: source for source in sources}
    chosen = []
    for text in trained:
        bare = text.removeprefix(BUNDLED)
        written = next((source.name for source in sources if source.text == text), bare)
        name = written if written in by_name else Path(text).resolve().name
        if name not in by_name:
            raise PromptotError(
                f"The source '{text}' is not one of the tasks.", fix=nearest(name, by_name)
            )
        chosen.append(by_name[name])
    return chosen or list(sources)


def tested_on(task: ImageTask, split: Split) -> ImageTask:
    """The task with the images of one split as its test images, and no others."""
    images = task.test if split == "test" else task.validation
    if not images:
        raise PromptotError(
            f"'{task.name}' has no {split} images.",
            fix=f"Give it a {split} folder, or leave all split folders out.",
        )
    return replace(task, train=(), validation=(), test=images)
