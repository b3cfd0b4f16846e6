"""What most sources come down to: images with a label each, put together as a task."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import compress
from numbers import Integral
from typing import Any

from promptot.data.class_names import check_class_names, clean_name, in_order
from promptot.data.readers.split_words import SPLITS, split_of, taken_for
from promptot.data.task import Example, Held, ImageTask, Skipped
from promptot.errors import PromptotError
from promptot.files.reading import LONGEST_NUMBER, brief

MOST_DIGITS = 18
"""Of a label that is a number; longer ones are text, such as the codes of a catalogue."""
_NUMBER = re.compile(rf"[+-]?\d{{1,{MOST_DIGITS}}}(\.0+)?")
_NO_NAMES = {"-1", "-1.0", "nan", "none", "null", "n/a", "#n/a", "na", "<na>", "?"}
"""Texts, lower case, that stand for "not known" more often than for a class."""


@dataclass(frozen=True, slots=True)
class Found:
    """An image as a source lists it.

    Attributes:
        path: see `Example`.
        label: a class name, or a number; None if it is not known.
        split: see `split_words`; without one it is an image to train on.
        domain, held: see `Example`.
    """

    path: str
    label: Any
    split: str = ""
    domain: str = ""
    held: Held | None = None


def assemble(
    name: str,
    found: Iterable[Found],
    label_names: Sequence[str] | None = None,
    *,
    splits_from: str = "",
) -> ImageTask:
    """A task of what was found.

    Labels that are numbers become classes in the order of `label_names`, or of the numbers, which
    are then their names; labels that are text in alphabetical order. A class that has no image in
    any split is left out. What had to be guessed is said in the task's `notes`.

    Args:
        name: of the task.
        found: the images.
        label_names: names of the labels 0, 1, …; two may be alike (`load_task` looks after that).
        splits_from: where the splits were read, if that was a guess: "the names of the files".

    Raises:
        PromptotError: no image has a label, a split is unknown, a number has no name, or two
            classes have one name.
    """
    unlabelled: list[Found] = []
    labelled: list[Found] = []
    values: list[Any] = []  # of the labelled ones
    for item in found:
        label = _known(_plain(item.label), name)
        if _is_unknown(label):
            unlabelled.append(item)
        else:
            labelled.append(item)
            values.append(label)
    notes: list[str] = []
    if all(_is_number(value) or _is_short_number(value) for value in values):
        notes += _of_negatives(name, [*values, *(_plain(item.label) for item in unlabelled)])
        known = [_whole(value) >= 0 for value in values]
        unlabelled += [item for item, is_known in zip(labelled, known, strict=True) if not is_known]
        labelled = list(compress(labelled, known))
        values = list(compress(values, known))
        keys, names = _numbered(values, label_names, name)
        notes += _of_floats(values)
    else:
        keys, names = _named(values)
        notes += _of_texts(values)
    if not labelled:
        raise PromptotError(
            f"'{name}' holds no labelled image.",
            fix="Every image needs a class name, or the number of one.",
        )
    check_class_names(names.values(), same=label_names is not None)
    labels = {key: label for label, key in enumerate(names)}
    splits: dict[str, list[Example]] = {"train": [], "validation": [], "test": []}
    written: dict[str, str] = {}
    for item, key in zip(labelled, keys, strict=True):
        split = _split_of(item.split, name)
        written.setdefault(item.split, split)
        splits[split].append(Example(item.path, labels[key], item.domain, item.held))
    told = {word: split for word, split in sorted(written.items()) if word.strip()}
    if told and (splits_from or any(word.casefold() != split for word, split in told.items())):
        notes.insert(0, taken_for(told, splits_from or "the split column"))
    return ImageTask(
        name=name,
        class_names=tuple(names.values()),
        train=tuple(splits["train"]),
        validation=tuple(splits["validation"]),
        test=tuple(splits["test"]),
        skipped=tuple(Skipped(item.path, "it has no label") for item in unlabelled),
        notes=tuple(notes),
    )


def by_number(task: ImageTask) -> ImageTask:
    """The task with its classes in the order of their numbers, where their names are numbers.

    Libraries that sort such names as text put 10 before 9; a task has one order however it is
    stored. Names in any other order are left in it.
    """
    names = task.class_names
    if list(names) != sorted(names) or len(set(names)) < len(names):
        return task
    order = in_order(names)
    return task if order == list(names) else task.select([names.index(name) for name in order])


def with_notes(task: ImageTask, *notes: str) -> ImageTask:
    """The task with these sentences before its own notes."""
    return replace(task, notes=(*notes, *task.notes))


def _numbered(
    values: Sequence[Any], label_names: Sequence[str] | None, name: str
) -> tuple[list[Any], dict[Any, str]]:
    """The key of each label that is a number, and the name of each key in the order of labels.

    Without names given, texts such as "007" keep their zeros, as folders do.
    """
    if label_names is not None:
        numbers = [_whole(value) for value in values]
        return numbers, {key: _name_of(key, label_names, name) for key in sorted(set(numbers))}
    written = {value: _without_point(value) for value in set(values)}
    keys = [written[value] for value in values]
    return keys, {key: key for key in in_order(set(keys))}


def _named(values: Sequence[Any]) -> tuple[list[Any], dict[Any, str]]:
    """The same of labels that are text."""
    cleaned = {text: clean_name(text) for text in set(map(str, values))}
    keys = [cleaned[str(value)] for value in values]
    return keys, {key: key for key in in_order(set(keys))}


def _whole(label: Any) -> int:
    """A number, or the text of one."""
    return int(label) if _is_number(label) else int(str(label).partition(".")[0])


def _without_point(label: Any) -> str:
    """A number as a name: 7, "7.0" and "+7" are "7"."""
    text = str(label).strip().partition(".")[0]
    return text if text.isdecimal() else str(int(text))


def _of_negatives(name: str, labels: Iterable[Any]) -> list[str]:
    """What to say of the negative numbers among labels, which are numbers or unknown.

    Raises:
        PromptotError: without them there is but one class.
    """
    numbers = [_whole(label) for label in labels if _is_number(label) or _is_short_number(label)]
    negative = [number for number in numbers if number < 0]
    if not negative:
        return []
    shown = ", ".join(map(str, sorted(set(negative))[:3]))
    classes = set(numbers) - set(negative)
    if len(classes) == 1:
        raise PromptotError(
            f"The labels of '{name}' are {shown} and {min(classes)}: a negative number says that "
            "a label is not known, and then there is but one class.",
            fix="If it is a class, write 0 and 1, or names.",
        )
    return [
        f"The label {shown} was taken for 'not known': {len(negative)} images were left out. If it "
        "is a class, write a name, or a number from 0 on."
    ]


def _of_floats(values: Sequence[Any]) -> list[str]:
    written = sorted({str(value) for value in values if "." in str(value)})
    if not written:
        return []
    shown = ", ".join(written[:3]) + (", …" if len(written) > 3 else "")
    return [f"The labels {shown} look like whole numbers written as floats, and were read as such."]


def _of_texts(values: Sequence[Any]) -> list[str]:
    """What to say of labels that may be no names, or are one name written in several ways."""
    texts = sorted({str(value) for value in values})
    notes = [
        f"'{text}' was taken for a class of this name; if it says that a label is not known, leave "
        "the cell empty."
        for text in texts
        if text.strip().casefold() in _NO_NAMES
    ]
    ways: dict[str, list[str]] = {}
    for text in texts:
        ways.setdefault(clean_name(text), []).append(text.strip())
    several = [sorted(set(way)) for way in ways.values() if len(set(way)) > 1]
    if several:
        shown = " and ".join(f"'{text:.60}'" for text in several[0][:3])
        more = f", and {len(several) - 1} more such" if len(several) > 1 else ""
        notes.append(f"{shown} were taken for one class{more}.")
    return notes


def _plain(label: Any) -> Any:
    """A label as Python's own kind of value; whole floats (a column with gaps) are numbers."""
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    if isinstance(label, Decimal) and label.is_finite() and label.adjusted() < MOST_DIGITS:
        label = float(label) if label % 1 else int(label)
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
    return isinstance(label, str) and _NUMBER.fullmatch(label.strip()) is not None


def _is_unknown(label: Any) -> bool:
    """None, "", NaN, or the −1 that data sets give to images whose label is kept secret.

    The text "-1" is one of these only where all other labels are numbers too.
    """
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
    split = split_of(text) if text.strip() else "train"
    if split is None:
        raise PromptotError(
            f"'{name}' has the split {brief(text)}.",
            fix=f"Write one of: {', '.join(SPLITS)}; or none.",
        )
    return split
