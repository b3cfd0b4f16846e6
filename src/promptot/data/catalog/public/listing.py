"""Small tools of the layouts: sorted listings, text files, MATLAB files, divisions."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from promptot.data.catalog.public.matlab_file import read_variable
from promptot.data.images.read_image import is_image_name
from promptot.errors import PromptotError
from promptot.files.reading import Unreadable, parse_json, read_text
from promptot.files.reading import text_lines as lines_of

SEED = 1
"""Of the divisions that stand in for a missing split file."""


class Row(NamedTuple):
    """One image: its path below the data set's image folder, label and class name."""

    path: str
    label: int
    name: str


class Lists(NamedTuple):
    """The images of a data set by split."""

    train: list[Row]
    validation: list[Row]
    test: list[Row]


def folders_in(place: Path) -> list[str]:
    """The names of the folders in a folder, sorted; hidden ones are passed over.

    Raises:
        PromptotError: the folder can't be listed.
    """
    return sorted(entry.name for entry in _entries(place) if entry.is_dir())


def images_in(place: Path) -> list[str]:
    """The names of the image files in a folder, sorted; hidden ones are passed over.

    Raises:
        PromptotError: the folder can't be listed.
    """
    return sorted(entry.name for entry in _entries(place) if is_image_name(entry.name))


def _entries(place: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(place) as found:
            return [entry for entry in found if not entry.name.startswith(".")]
    except OSError as error:
        raise PromptotError(
            f"Can't list '{place}': {error.strerror}.",
            fix="`promptot data check` says where it comes from.",
        ) from None


def text_lines(path: Path) -> list[str]:
    """The lines of a text file that are not blank, without outer blanks.

    Raises:
        PromptotError: it can't be read.
    """
    return [line.strip() for line in lines_of(_text(path)) if line.strip()]


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        PromptotError: it can't be read, or is no JSON.
    """
    try:
        return parse_json(_text(path))
    except Unreadable as error:
        raise PromptotError(f"'{path}' is not JSON: {error}.", fix="Download it again.") from None


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except Unreadable as error:
        raise PromptotError(
            f"Can't read '{path}': {error}.",
            fix="`promptot data check` says where it comes from.",
        ) from None


def read_mat(path: Path, key: str) -> Any:
    """A variable of a MATLAB file, with singleton dimensions removed.

    Raises:
        PromptotError: it can't be read, or lacks the variable.
    """
    try:
        return read_variable(path, key)
    except Exception as error:  # SciPy raises anything at all on damaged bytes
        raise PromptotError(
            f"Can't read '{key}' from '{path}': {error}.",
            fix="`promptot data check` says where it comes from.",
        ) from None


def by_label(rows: Sequence[Row]) -> dict[int, list[Row]]:
    """Rows by label, in the order of their first appearance."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.label, []).append(row)
    return groups


def divide(rows: Sequence[Row]) -> Lists:
    """Divide 50 : 20 : 30 class by class, with the published sizes but not the published draw."""
    lists = Lists([], [], [])
    generator = random.Random(SEED)
    for group in by_label(rows).values():
        shuffled = generator.sample(group, len(group))
        train, validation = round(len(group) * 0.5), round(len(group) * 0.2)
        lists.train.extend(shuffled[:train])
        lists.validation.extend(shuffled[train : train + validation])
        lists.test.extend(shuffled[train + validation :])
    return lists


def hold_out(rows: Sequence[Row], test: list[Row]) -> Lists:
    """Take a fifth of each class for validation, with the published sizes but not that draw."""
    lists = Lists([], [], test)
    generator = random.Random(SEED)
    for group in by_label(rows).values():
        shuffled = generator.sample(group, len(group))
        validation = round(len(group) * 0.2)
        lists.validation.extend(shuffled[:validation])
        lists.train.extend(shuffled[validation:])
    return lists
