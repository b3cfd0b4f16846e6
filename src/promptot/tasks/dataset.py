"""An image classification task: examples, class names, splits, shots."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from promptot.errors import PromptotError
from promptot.tasks.names import check_template


@dataclass(frozen=True)
class Example:
    """One image: where it lies (`path`, or `archive.zip::member`) and its class."""

    path: str
    label: int


@dataclass(frozen=True)
class Skipped:
    """An image that is left out, and why."""

    path: str
    reason: str


@dataclass(frozen=True)
class ImageTask:
    """Images to tell apart by class names. `label` indexes `class_names`.

    Args:
        name: what to call the task in tables.
        class_names: one name per class, in the order of the labels.
        train, validation, test: the examples of each split; any may be empty.
        template: the caption that the frozen model reads, with `{}` for the class name.
        skipped: what was left out on the way here.

    Example:
        >>> cats = [Example(f"cat{i}.png", 0) for i in range(3)]
        >>> dogs = [Example(f"dog{i}.png", 1) for i in range(3)]
        >>> task = ImageTask("pets", ("cat", "dog"), train=(*cats, *dogs))
        >>> [e.path for e in task.few_shot(1, seed=1).train]
        ['cat0.png', 'dog2.png']
        >>> task.novel().class_names
        ('dog',)
    """

    name: str
    class_names: tuple[str, ...]
    train: tuple[Example, ...] = ()
    validation: tuple[Example, ...] = ()
    test: tuple[Example, ...] = ()
    template: str = "a photo of a {}."
    skipped: tuple[Skipped, ...] = ()

    def __post_init__(self) -> None:
        check_template(self.template)
        for example in (*self.train, *self.validation, *self.test):
            if not 0 <= example.label < len(self.class_names):
                raise PromptotError(
                    f"'{example.path}' has label {example.label}, but there are "
                    f"{len(self.class_names)} class names.",
                    fix="Labels count from 0 in the order of the class names.",
                )

    def base(self) -> ImageTask:
        """The first ceil(C / 2) classes, in ascending order of their labels."""
        return self.select(range(self._base_count))

    def novel(self) -> ImageTask:
        """The classes that `base` leaves out, relabelled from 0."""
        return self.select(range(self._base_count, len(self.class_names)))

    def select(self, labels: Sequence[int]) -> ImageTask:
        """The task with only these classes, relabelled from 0 in the given order."""
        relabelled = {old: new for new, old in enumerate(labels)}

        def keep(examples: tuple[Example, ...]) -> tuple[Example, ...]:
            return tuple(
                replace(example, label=relabelled[example.label])
                for example in examples
                if example.label in relabelled
            )

        return replace(
            self,
            class_names=tuple(self.class_names[label] for label in labels),
            train=keep(self.train),
            validation=keep(self.validation),
            test=keep(self.test),
        )

    def few_shot(self, shots: int | None, seed: int) -> ImageTask:
        """Draw `shots` training images per class, and min(shots, 4) for validation.

        The draws are those of the published few-shot protocol: python's generator seeded with
        `seed`, classes in the order of their first appearance, a sample without replacement each
        (all images if there are fewer), the training split first. To compare with published
        numbers draw first and take `base()` afterwards. None keeps everything.
        """
        if shots is None:
            return self
        if shots < 1:
            raise PromptotError(f"{shots} shots are not possible.", fix="Ask for 1 or more.")
        generator = random.Random(seed)
        return replace(
            self,
            train=_sample(self.train, shots, generator),
            validation=_sample(self.validation, min(shots, 4), generator),
        )

    @property
    def _base_count(self) -> int:
        return (len(self.class_names) + 1) // 2


def by_label(examples: Sequence[Example]) -> dict[int, list[Example]]:
    """Group examples by label, labels in the order of their first appearance."""
    groups: dict[int, list[Example]] = {}
    for example in examples:
        groups.setdefault(example.label, []).append(example)
    return groups


def _sample(
    examples: tuple[Example, ...], shots: int, generator: random.Random
) -> tuple[Example, ...]:
    drawn: list[Example] = []
    for group in by_label(examples).values():
        drawn += generator.sample(group, shots) if len(group) >= shots else group
    return tuple(drawn)
