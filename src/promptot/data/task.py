"""An image classification task: examples, class names, splits, shots."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from PIL import Image

from promptot.data.class_names import DEFAULT_TEMPLATE, check_template
from promptot.data.images.fingerprint import Fingerprint, ImageIdentities
from promptot.data.images.in_memory_image import InMemoryImage
from promptot.data.images.read_image import load_image
from promptot.errors import PromptotError

SPLITS = ("train", "validation", "test")

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


def no_progress(what: str, done: int, total: int) -> None:
    """Progress that nobody is told."""


@dataclass(frozen=True, slots=True)
class Example:
    """One image and its class.

    Attributes:
        path: where it lies (`promptot.data.images.image_bytes` lists the places), or what it is
            called.
        label: position of its class name.
        domain: what kind of picture it is ("sketch", "photo"), where the data say so.
        held: how to get at an image that lies in no file.
    """

    path: str
    label: int
    domain: str = ""
    held: InMemoryImage | None = field(default=None, compare=False, repr=False)

    def load(self) -> Image.Image:
        """The image as 8-bit RGB, see `load_image`.

        Raises:
            UnreadableImage: with the reason.
        """
        image = self.path if self.held is None else self.held.fetch(self.path)
        return load_image(image, self.path)

    @property
    def source(self) -> tuple[str, InMemoryImage | None]:
        """What tells it from the other images of a process: two in memory may share a name."""
        return self.path, self.held

    def fingerprint(self, identities: ImageIdentities | None = None) -> Fingerprint:
        """What results of the image are kept under, wherever it lies; no file is read.

        Args:
            identities: what is known by now; shared among many images, it saves time.
        """
        return (identities or ImageIdentities()).fingerprint(self.path, self.held)

    def hash(self, identities: ImageIdentities | None = None) -> str:
        """SHA-256 of the image's content, wherever it lies, see `image_hash`; reads the file.

        Args:
            identities: as above.

        Raises:
            UnreadableImage: with the reason.
        """
        return (identities or ImageIdentities()).hash(self.path, self.held)


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
        synonyms: by class name, other names of the class; a class's text feature is the mean over
            all its names.
        notes: what was taken for what where the source does not say it: splits, classes, labels; a
            sentence each.
        same_names: whether two classes may have one name, on purpose.

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
    template: str = DEFAULT_TEMPLATE
    skipped: tuple[Skipped, ...] = ()
    synonyms: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    same_names: bool = False

    def __post_init__(self) -> None:
        check_template(self.template)
        for example in self.examples:
            if not 0 <= example.label < len(self.class_names):
                raise PromptotError(
                    f"'{example.path}' has label {example.label}, but there are "
                    f"{len(self.class_names)} class names.",
                    fix="Labels count from 0 in the order of the class names.",
                )

    def base(self) -> ImageTask:
        """The first ceil(C / 2) classes, in ascending order of their labels."""
        return self.select(range((len(self.class_names) + 1) // 2))

    def novel(self) -> ImageTask:
        """The classes that `base` leaves out, relabelled from 0."""
        return self.select(range((len(self.class_names) + 1) // 2, len(self.class_names)))

    def select(self, labels: Sequence[int]) -> ImageTask:
        """The task with only these classes, relabelled from 0 in the given order."""
        new = {old: label for label, old in enumerate(labels)}
        chosen = {
            split: [replace(e, label=new[e.label]) for e in examples if e.label in new]
            for split, examples in self.splits.items()
        }
        return self.with_splits(chosen, [self.class_names[label] for label in labels])

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
    def examples(self) -> tuple[Example, ...]:
        """The images of all splits."""
        return (*self.train, *self.validation, *self.test)

    @property
    def splits(self) -> dict[str, tuple[Example, ...]]:
        """The images of each of `SPLITS`."""
        return {"train": self.train, "validation": self.validation, "test": self.test}

    def with_splits(
        self, splits: Mapping[str, Iterable[Example]], class_names: Sequence[str] | None = None
    ) -> ImageTask:
        """The task with other images; a split that is not given has none.

        Args:
            class_names: that their labels index, if others than before.
        """
        names = self.class_names if class_names is None else tuple(class_names)
        train, validation, test = (tuple(splits.get(split, ())) for split in SPLITS)
        return replace(self, class_names=names, train=train, validation=validation, test=test)

    @property
    def own_template(self) -> str | None:
        """The template, if the task has one of its own."""
        return None if self.template == DEFAULT_TEMPLATE else self.template

    @property
    def domains(self) -> tuple[str, ...]:
        """The kinds of pictures, sorted; none if the data don't tell them apart."""
        return tuple(sorted({example.domain for example in self.examples if example.domain}))

    def in_domain(self, domain: str) -> ImageTask:
        """The task with the images of one domain only, and all class names."""
        return self.with_splits(
            {split: [e for e in own if e.domain == domain] for split, own in self.splits.items()}
        )


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
