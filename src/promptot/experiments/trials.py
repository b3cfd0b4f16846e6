"""What is learnt from and what is tested, for each protocol: a list of trials."""

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
    list_styles,
    load_bundled,
    load_bundled_domains,
    load_bundled_others,
)
from promptot.data.dividing import split_examples
from promptot.data.readers import BUNDLED, load_task
from promptot.data.shot_lists import ShotList, replay
from promptot.data.task import Example, ImageTask
from promptot.data.unreadable import choose_shots
from promptot.errors import PromptotError, nearest
from promptot.runs.run import Classes

Split = Literal["test", "validation"]
Shares = tuple[float, float, float]

SPLIT: Shares = (0.5, 0.2, 0.3)
"""Training, validation and test share of each class of a task without splits of its own."""
HELD_OUT_STYLE = "fluent-emoji-high-contrast"
"""A training style of the drawings that domain generalization keeps for testing."""

RETENTION = "retention"
DOMAIN, TARGET, TUNED = "domain/", "target/", "validation/"
"""What the names of parts start with; `TUNED` domains are those that settings were chosen on."""


@dataclass(frozen=True, eq=False)
class Trial:
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
    def unit(self) -> tuple[str, int]:
        """What tells it from the other trials."""
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
        place, digest: of a public data set, see `Trial`.
        listed_from: see `Trial`.
    """

    text: str
    name: str
    task: ImageTask
    others: ImageTask | None
    group: str | None
    place: Path | None = None
    digest: str | None = None
    listed_from: Path = Path()

    def trials(
        self,
        pool: ImageTask,
        classes: Classes,
        parts: Mapping[str, ImageTask],
        shots: Sequence[int],
        tested: Sequence[Source] = (),
    ) -> list[Trial]:
        """One trial for each number of shots.

        Args:
            pool, classes, parts: of the trials.
            tested: the other sources that the parts are made of.
        """
        digest = None
        if self.digest is not None:
            digests = [source.digest for source in (self, *tested)]
            sizes = [[name, len(part.class_names), len(part.test)] for name, part in parts.items()]
            decides = json.dumps([digests, classes, sizes])
            digest = hashlib.sha256(decides.encode()).hexdigest()
        return [
            Trial(
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


def base_to_novel_trials(
    sources: Sequence[Source], trained: Sequence[str], shots: Sequence[int], split: Split
) -> list[Trial]:
    """Train on the first half of the classes; test both halves, each among its own names."""
    trials = []
    for source in _pick(sources, trained):
        if len(source.task.class_names) < 2:
            raise PromptotError(
                f"'{source.name}' has one class, which can't be divided into base and novel.",
                fix="Take a task with two classes or more.",
            )
        parts = {
            "base": _tested(source.task.base(), split),
            "novel": _tested(source.task.novel(), split),
            **_retention(source, split),
        }
        trials += source.trials(source.task, "base", parts, shots)
    return trials


def cross_dataset_trials(
    sources: Sequence[Source], trained: Sequence[str], shots: Sequence[int], split: Split
) -> list[Trial]:
    """Train on all classes of one task; test every other task as it is."""
    if len(sources) < 2:
        raise PromptotError("One task has no other to test on.", fix="Give two tasks or more.")
    trials = []
    for source in _pick(sources, trained):
        parts = {"source": _tested(source.task, split)}
        for other in sources:
            if other is not source:
                parts[f"{TARGET}{other.name}"] = _tested(other.task, split)
        parts |= _retention(source, split)
        trials += source.trials(source.task, "all", parts, shots, sources)
    return trials


def few_shot_trials(
    sources: Sequence[Source], trained: Sequence[str], shots: Sequence[int], split: Split
) -> list[Trial]:
    """Train on all classes with K images each, for every K; test the same classes."""
    trials = []
    for source in _pick(sources, trained):
        parts = {"test": _tested(source.task, split), **_retention(source, split)}
        trials += source.trials(source.task, "all", parts, shots)
    return trials


def domain_generalization_trials(
    sources: Sequence[Source], trained: Sequence[str], shots: Sequence[int], split: Split
) -> list[Trial]:
    """Train in one domain; test the same classes in others, of their classes those present.

    In a group of drawings a domain is a style. The training styles but one are the source; that one
    and the test style are the shifted domains; the validation styles are tested too, but apart,
    because settings are chosen on them. Of a table with a column of domains each is one; other
    tasks are one domain each. Nothing is learnt from a target, so all its images are tested, of
    whatever split; of the source, those of the split.
    """
    sources = [part for source in sources for part in _by_domain(source)]
    trials = []
    for source in _pick(sources, trained):
        domains = [other for other in sources if other.group is None and other is not source]
        if source.group is not None:
            pool, parts = _styles(source.group, split)
        else:
            pool, parts = source.task, _domains(source, domains, split)
            if source.task.test if split == "test" else source.task.validation:
                parts = {"source": _tested(source.task, split), **parts}
        parts |= _retention(source, split) if source.group is not None else {}
        trials += source.trials(pool, "all", parts, shots, domains)
    return trials


def _load(text: str, shares: Shares) -> ImageTask:
    if text.startswith(BUNDLED):
        return load_bundled(text.removeprefix(BUNDLED))
    task = split_examples(load_task(text), seed=0, fractions=shares)
    return replace(task, name=Path(text).resolve().name) if Path(text).is_dir() else task


def _pick(sources: Sequence[Source], trained: Sequence[str]) -> list[Source]:
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


def _by_domain(source: Source) -> list[Source]:
    """A source for each of its domains, with the classes that this domain has; or itself."""
    if len(source.task.domains) < 2:
        return [source]
    parts = []
    for domain in source.task.domains:
        part = source.task.in_domain(domain)
        present = sorted({example.label for example in part.examples})
        task = replace(part.select(present), name=f"{source.name} {domain}")
        text = f"{source.text}::{domain}"
        parts.append(Source(text, task.name, task, None, None, listed_from=source.listed_from))
    return parts


def _tested(task: ImageTask, split: Split) -> ImageTask:
    """The task with the images of one split as its test images, and no others."""
    images = task.test if split == "test" else task.validation
    if not images:
        raise PromptotError(
            f"'{task.name}' has no {split} images.",
            fix=f"Give it a {split} folder, or leave all split folders out.",
        )
    return replace(task, train=(), validation=(), test=images)


def _retention(source: Source, split: Split) -> dict[str, ImageTask]:
    return {} if source.others is None else {RETENTION: _tested(source.others, split)}


def _styles(group: str, split: Split) -> tuple[ImageTask, dict[str, ImageTask]]:
    tuned = list_styles("validation")
    shifted = [HELD_OUT_STYLE, *list_styles("test")] if split == "test" else []
    source = [style for style in list_styles("train") if style != HELD_OUT_STYLE]
    pool, tasks = load_bundled_domains(group, source, [*shifted, *tuned])
    return pool, {f"{TUNED if s in tuned else DOMAIN}{s}": task for s, task in tasks.items()}


def _domains(source: Source, others: Sequence[Source], split: Split) -> dict[str, ImageTask]:
    if not others:
        raise PromptotError(
            "One folder has no other domain to test on.", fix="Give two folders or more."
        )
    known = {name.casefold() for name in source.task.class_names}
    parts = {}
    for other in others:
        foreign = [name for name in other.task.class_names if name.casefold() not in known]
        if foreign:
            raise PromptotError(
                f"The domain '{other.name}' has the class '{foreign[0]}', which the source "
                f"'{source.name}' has not.",
                fix="Choose the source with the most classes (--sources), or rename the folder.",
            )
        whole = replace(other.task, test=other.task.examples)
        tested = _tested(whole if split == "test" else other.task, split)
        present = sorted({example.label for example in tested.test})
        parts[f"{DOMAIN}{other.name}"] = tested.select(present)
    return parts
