"""What most sources come down to: images with a label each, put together as a task."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from promptot.errors import PromptotError
from promptot.reading import LONGEST_NUMBER, brief
from promptot.tasks.dataset import Example, Held, ImageTask, Skipped
from promptot.tasks.names import check_class_names, clean_name

SPLITS = {
    "": "train",
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
"""How the splits are written, lower case. Without a split an image is one to train on."""

MOST_DIGITS = 18
"""Of a label that is a number; longer ones are text, such as the codes of a catalogue."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image as a source lists it.

    Attributes:
        path: see `Example`.
        label: a class name, or a number; None if it is not known.
        split: see `SPLITS`.
        domain, held: see `Example`.
    """

    path: str
    label: Any
    split: str = ""
    domain: str = ""
    held: Held | None = None


def assemble(
    name: str, found: Iterable[Found], label_names: Sequence[str] | None = None
) -> ImageTask:
    """A task of what was found.

    Labels that are numbers become classes in the order of `label_names`, or of the numbers, which
    are then their names; labels that are text in alphabetical order. A class that has no image in
    any split is left out.

    Args:
        name: of the task.
        found: the images.
        label_names: names of the labels 0, 1, ….

    Raises:
        PromptotError: no image has a label, a split is unknown, a number has no name, or two
            classes have one name.
    """
    skipped: list[Skipped] = []
    labelled: list[Found] = []
    values: list[Any] = []  # of the labelled ones
    for item in found:
        label = _known(_plain(item.label), name)
        if _is_unknown(label):
            skipped.append(Skipped(item.path, "it has no label"))
        else:
            labelled.append(item)
            values.append(label)
    if not labelled:
        raise PromptotError(
            f"'{name}' holds no labelled image.",
            fix="Every image needs a class name, or the number of one.",
        )
    if all(_is_number(value) or _is_short_number(value) for value in values):
        keys = [int(value) for value in values]
        names = {key: _name_of(key, label_names, name) for key in sorted(set(keys))}
    else:
        raw = {text: clean_name(text) for text in set(map(str, values))}
        names = dict(enumerate(sorted(set(raw.values()))))
        places = {text: place for place, text in names.items()}
        keys = [places[raw[str(value)]] for value in values]
    check_class_names(names.values())
    labels = {key: label for label, key in enumerate(names)}
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    for item, key in zip(labelled, keys, strict=True):
        split = _split_of(item.split, name)
        splits[split].append(Example(item.path, labels[key], item.domain, item.held))
    return ImageTask(
        name=name,
        class_names=tuple(names.values()),
        train=tuple(splits["train"]),
        validation=tuple(splits["validation"]),
        test=tuple(splits["test"]),
        skipped=tuple(skipped),
    )


def _plain(label: Any) -> Any:
    """A label as Python's own kind of value; whole floats (a column with gaps) are numbers."""
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    return int(label) if isinstance(label, float) and label.is_integer() else label


def _known(label: Any, name: str) -> Any:
    """A label that can be written down.

    Raises:
        PromptotError: it is a number of more digits than Python writes.
    """
    if _is_number(label) and int(label).bit_length() > 3 * LONGEST_NUMBER:
        raise PromptotError(
            f"'{name}' has a label of {int(label).bit_length()} bits.",
            fix="Give class names, or numbers that count from 0.",
        )
    return label


def _is_number(label: Any) -> bool:
    return isinstance(label, Integral) and not isinstance(label, bool)


def _is_short_number(label: Any) -> bool:
    text = str(label)
    return len(text) <= MOST_DIGITS and text.isdecimal()


def _is_unknown(label: Any) -> bool:
    """None, "", NaN, or the −1 that data sets give to images whose label is kept secret."""
    if label is None or (_is_number(label) and label < 0):
        return True
    return not str(label).strip() or label != label  # NaN differs from itself


def _name_of(value: int, label_names: Sequence[str] | None, name: str) -> str:
    if label_names is None:
        return str(value)
    if value >= len(label_names):
        raise PromptotError(
            f"'{name}' has the label {brief(value)}, but only {len(label_names)} class names.",
            fix="Labels count from 0 in the order of the class names.",
        )
    return clean_name(str(label_names[value]))


def _split_of(text: str, name: str) -> str:
    split = SPLITS.get(str(text).strip().casefold())
    if split is None:
        raise PromptotError(
            f"'{name}' has the split {brief(text)}.",
            fix=f"Write one of: {', '.join(key for key in SPLITS if key)}; or none.",
        )
    return split
