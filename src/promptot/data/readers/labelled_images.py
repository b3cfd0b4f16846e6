"""What most sources come down to: images with a label each, put together as a task."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import compress, repeat
from numbers import Integral
from operator import not_
from typing import Any

from promptot.data.class_names import check_class_names, clean_name, in_order
from promptot.data.images.in_memory_image import Images, InMemoryImage
from promptot.data.readers.split_words import SPLITS, split_of, taken_for
from promptot.data.task import Example, ImageTask, Skipped
from promptot.errors import PromptotError, listed
from promptot.files.reading import LONGEST_NUMBER, brief

MOST_DIGITS = 18
"""Of a label that is a number; longer ones are text, such as the codes of a catalogue."""
_NUMBER = re.compile(rf"[+-]?\d{{1,{MOST_DIGITS}}}(\.0+)?")
_NO_NAMES = {"-1", "-1.0", "nan", "none", "null", "n/a", "#n/a", "na", "<na>", "?"}
"""Texts, lower case, that stand for "not known" more often than for a class."""


@dataclass(frozen=True, slots=True)
class LabelledImage:
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
    held: InMemoryImage | None = None


_Rows = list[tuple[LabelledImage, Any]]  # with their labels as they are read


def list_images(
    labels: Iterable[Any],
    place: Callable[[int], str | tuple[str, InMemoryImage]],
    *,
    splits: Iterable[Any] = repeat(""),
    domains: Iterable[Any] = repeat(""),
) -> list[LabelledImage]:
    """The images of a source that has its labels, splits and domains in columns.

    Args:
        labels: of the images.
        place: gives the path of the image in a row; or its name and how to get at it.
        splits, domains: as many as there are labels, or more.
    """
    images = []
    for row, (label, split, domain) in enumerate(zip(labels, splits, domains, strict=False)):
        own = place(row)
        path, held = (own, None) if isinstance(own, str) else own
        images.append(LabelledImage(path, label, str(split or ""), str(domain or ""), held))
    return images


def list_columns(
    chosen: Mapping[str, str],
    values: Callable[[str], Iterable[Any]],
    place: Callable[[int], str | tuple[str, InMemoryImage]],
    split: str = "",
) -> list[LabelledImage]:
    """The images of a table.

    Args:
        chosen: the columns, see `choose_columns`.
        values: gives what is in a column.
        place: see `list_images`.
        split: of all images, where no column is chosen for it.
    """
    return list_images(
        values(chosen["label"]),
        place,
        splits=values(chosen["split"]) if "split" in chosen else repeat(split),
        domains=values(chosen["domain"]) if "domain" in chosen else repeat(""),
    )


def in_memory(images: Images, name: str) -> Callable[[int], tuple[str, InMemoryImage]]:
    """The `place` of images that are fetched by their row."""
    return lambda row: (f"{name}[{row}]", InMemoryImage(images, row))


def assemble(
    name: str,
    images: Iterable[LabelledImage],
    label_names: Sequence[str] | None = None,
    *,
    splits_from: str = "",
) -> ImageTask:
    """A task of images with their labels.

    Labels that are numbers become classes in the order of `label_names`, or of the numbers, which
    are then their names; labels that are text in alphabetical order. A class that has no image in
    any split is left out. What had to be guessed is said in the task's `notes`.

    Args:
        name: of the task.
        images: as the source lists them.
        label_names: names of the labels 0, 1, …; two may be alike (`load_task` looks after that).
        splits_from: where the splits were read, if that was a guess: "the names of the files".

    Raises:
        PromptotError: no image has a label, a split is unknown, a number has no name, or two
            classes have one name.
    """
    rows = [(image, _read_label(image.label, name)) for image in images]
    unlabelled, labelled = _divide(rows, _is_unknown)
    notes: list[str] = []
    numbers = all(_is_number(label) for _, label in labelled)
    if numbers:
        notes += _of_negatives(name, [label for _, label in rows if _is_number(label)])
        negative, labelled = _divide(labelled, lambda label: _whole(label) < 0)
        unlabelled += negative
    values = [label for _, label in labelled]
    keys, names = _classes(values, numbers, label_names, name)
    notes += _of_floats(values) if numbers else _of_texts(values)
    if not labelled:
        raise PromptotError(
            f"'{name}' holds no labelled image.",
            fix="Every image needs a class name, or the number of one.",
        )
    check_class_names(names.values(), same=label_names is not None)
    labels = {key: label for label, key in enumerate(names)}
    written = {
        split: _split_of(split, name) for split in dict.fromkeys(i.split for i, _ in labelled)
    }
    splits: dict[str, list[Example]] = {split: [] for split in written.values()}
    for (image, _), key in zip(labelled, keys, strict=True):
        example = Example(image.path, labels[key], image.domain, image.held)
        splits[written[image.split]].append(example)
    told = {word: split for word, split in sorted(written.items()) if word.strip()}
    if told and (splits_from or any(word.casefold() != split for word, split in told.items())):
        notes.insert(0, taken_for(told, splits_from or "the split column"))
    return ImageTask(
        name=name,
        class_names=tuple(names.values()),
        skipped=tuple(Skipped(image.path, "it has no label") for image, _ in unlabelled),
        notes=tuple(notes),
    ).with_splits(splits)


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


def _divide(rows: _Rows, test: Callable[[Any], bool]) -> tuple[_Rows, _Rows]:
    """The rows whose labels pass a test, and the others."""
    passed = [test(label) for _, label in rows]
    return list(compress(rows, passed)), list(compress(rows, map(not_, passed)))


def _classes(
    values: Sequence[Any], numbers: bool, label_names: Sequence[str] | None, name: str
) -> tuple[list[Any], dict[Any, str]]:
    """The key of each label, and the name of each key in the order of labels.

    Without names given, texts of numbers such as "007" keep their zeros, as folders do.
    """
    if numbers and label_names is not None:
        places = [_whole(value) for value in values]
        return places, {key: _name_of(key, label_names, name) for key in sorted(set(places))}
    as_name = _without_point if numbers else clean_name
    written = {text: as_name(text) for text in set(map(str, values))}
    keys = [written[str(value)] for value in values]
    return keys, {key: key for key in in_order(set(keys))}


def _whole(label: Any) -> int:
    """A number, or the text of one."""
    return int(str(label).partition(".")[0]) if isinstance(label, str) else int(label)


def _without_point(text: str) -> str:
    """A number as a name: "7.0" and "+7" are "7"."""
    text = text.strip().partition(".")[0]
    return text if text.isdecimal() else str(int(text))


def _of_negatives(name: str, labels: Iterable[Any]) -> list[str]:
    """What to say of the negative ones among numbers.

    Raises:
        PromptotError: without them there is but one class.
    """
    numbers = list(map(_whole, labels))
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
    shown = listed(written, 3, quoted=False, counted=False)
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


def _read_label(label: Any, name: str) -> Any:
    """A label as Python's own kind of value; whole floats (a column with gaps) are numbers.

    Raises:
        PromptotError: it is a number of more digits than Python writes.
    """
    if hasattr(label, "item") and getattr(label, "ndim", 0) == 0:
        label = label.item()
    if isinstance(label, Decimal) and label.is_finite() and label.adjusted() < MOST_DIGITS:
        label = float(label) if label % 1 else int(label)
    if isinstance(label, float) and label.is_integer():
        label = int(label)
    if isinstance(label, Integral) and int(label).bit_length() > 3 * LONGEST_NUMBER:
        raise PromptotError(
            f"'{name}' has a label of {int(label).bit_length()} bits.",
            fix="Give class names, or numbers that count from 0.",
        )
    return label


def _is_number(label: Any) -> bool:
    """Whether it is a whole number, or the text of a short one."""
    if isinstance(label, str):
        return _NUMBER.fullmatch(label.strip()) is not None
    return isinstance(label, Integral) and not isinstance(label, bool)


def _is_unknown(label: Any) -> bool:
    """None, "", NaN, or the −1 that data sets give to images whose label is kept secret.

    The text "-1" is one of these only where all other labels are numbers too.
    """
    if label is None or (isinstance(label, Integral) and label < 0):
        return True
    return not str(label).strip() or label != label  # NaN differs from itself


def _name_of(value: int, label_names: Sequence[str], name: str) -> str:
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
