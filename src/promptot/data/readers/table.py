"""Tables of images and labels: CSV, TSV, JSON lines, Parquet, Arrow, data frames."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptot.data.arrow_columns import ColumnFile
from promptot.data.images.in_memory_image import InMemoryImage
from promptot.data.memory_bounds import check_rows
from promptot.data.readers.columns import COLUMNS, choose_columns, label_notes
from promptot.data.readers.labelled_images import (
    LabelledImage,
    assemble,
    by_number,
    in_memory,
    list_columns,
    with_notes,
)
from promptot.data.readers.relative_paths import place_of
from promptot.data.readers.split_words import common_splits, split_in_name, split_of
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import (
    Unreadable,
    brief,
    parse_json,
    read_csv,
    read_text,
    reading_errors,
    text_lines,
)

_KNOWN = frozenset(name for names in COLUMNS.values() for name in names)

TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
COLUMN_TABLES = (".parquet", ".arrow")
_COLUMN_FIX = "It should hold paths, bytes of image files, or {bytes, path}."


def load_table(
    paths: Sequence[Path],
    name: str,
    columns: Mapping[str, str] | None = None,
    splits: Sequence[str] | None = None,
) -> ImageTask:
    """Read a table: a row an image, with a path and a label, perhaps a split and a domain.

    Paths are relative to the table's folder, and may be written as Windows does. A Parquet or Arrow
    file may hold the images themselves: as bytes, or as {bytes, path} (Hugging Face's `datasets`).
    Without a column of splits, folders called as such in all paths are taken for them.

    Args:
        paths: the table's files. Of several, a file called "train…", "test…" or the like is that
            split, unless a column says otherwise.
        name: of the task.
        columns: what the columns "image", "label", "split" and "domain" are called, where it is
            none of `COLUMNS`.
        splits: of each file, as its folder is called, unless a column says otherwise.

    Raises:
        PromptotError: a file or a column is missing, or a row is damaged.
    """
    where = "" if splits is None else "the folders"
    if splits is None:
        splits = [split_in_name(path.stem) if len(paths) > 1 else "" for path in paths]
        where = "the names of the files" if any(splits) else ""
    images: list[LabelledImage] = []
    notes: list[str] = []
    label_names: Sequence[str] | None = None
    told = bool(where)  # whether anything says what the splits are
    for path, split in zip(paths, splits, strict=True):
        if path.suffix.lower() in COLUMN_TABLES:
            file = ColumnFile(path)
            header: Sequence[str] = file.columns
            chosen = choose_columns(header, str(path), columns)
            images += images_in_columns(file, chosen, split, path.parent, _COLUMN_FIX)
            label_names = file.class_names.get(chosen["label"], label_names)
        else:
            header, rows = _read_text(path)
            chosen = choose_columns(header, str(path), columns)
            images += _from_rows(rows, chosen, path.parent, split)
        if "split" in chosen:
            told, where = True, ""
        notes += label_notes(header, chosen, columns)
    if not told:
        images, where, why_not = _splits_in_paths(images, paths[0].parent)
        notes += why_not
    task = by_number(assemble(name, images, label_names, splits_from=where))
    return with_notes(task, *dict.fromkeys(notes))


def load_frame(frame: Any, name: str, columns: Mapping[str, str] | None = None) -> ImageTask:
    """Read a data frame (pandas, polars, …); its images may be paths, PIL images or arrays.

    Raises:
        PromptotError: a column is missing.
    """
    header = [str(column) for column in frame.columns]
    chosen = choose_columns(header, "the table", columns)
    own = list(frame[chosen["image"]])
    held = in_memory(own, name)

    def place(row: int) -> str | tuple[str, InMemoryImage]:
        if isinstance(own[row], str | Path):
            return place_of(Path(), str(own[row]))
        return held(row)

    images = list_columns(chosen, lambda column: list(frame[column]), place)
    notes, where = label_notes(header, chosen, columns), ""
    if "split" not in chosen:
        images, where, why_not = _splits_in_paths(images, Path())
        notes += why_not
    return with_notes(assemble(name, images, splits_from=where), *notes)


def header_of(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        PromptotError: it is damaged.
    """
    if path.suffix.lower() in COLUMN_TABLES:
        return ColumnFile(path).columns
    return _read_text(path)[0]


def _splits_in_paths(
    images: list[LabelledImage], folder: Path
) -> tuple[list[LabelledImage], str, list[str]]:
    """The images of a table without splits, with those that folders in their paths are called as.

    Returns:
        the images, where the splits are from ("" if nowhere), and what to say if they are not.
    """
    places = [_folder_of(image, folder) for image in images]
    folders = {place: Path(place).parts for place in set(places) if place is not None}
    if not any(split_of(text) for parts in folders.values() for text in parts):
        return images, "", []
    words = common_splits(list(folders.values()))
    if words is not None and None in places:
        return images, "", ["Folders in some paths are called as splits; they were not taken so."]
    rows = list(zip(images, map(str, places), strict=True))
    if words is not None:
        word_of = dict(zip(folders, words, strict=True))
        images = [replace(image, split=word_of[place]) for image, place in rows]
        return images, "the folders in the paths", []
    counts = Counter(
        text
        for image, place in rows
        for text in set(folders.get(place, ()))
        if split_of(text) and text.casefold() != str(image.label).strip().casefold()
    )
    if not counts:
        return images, "", []
    word, count = counts.most_common(1)[0]
    above = any(Path(place).is_absolute() for place in folders)  # such as somebody's home
    if count == len(images) and (split_of(word) == "train" or above):
        return images, "", []
    every = "every path has" if count == len(images) else f"{count} of {len(images)} paths have"
    note = (
        f"The folder '{word}', which {every}, was not taken for a split: there is no other at its "
        "place in all paths. A column 'split' says it for sure."
    )
    return images, "", [note]


def _folder_of(image: LabelledImage, folder: Path) -> str | None:
    """The folder of an image, from `folder` on if it lies there; None if it has no path."""
    if image.held is not None or "::" in image.path:
        return None
    own = os.path.dirname(image.path)  # noqa: PTH120 - of a million rows
    return "" if own == str(folder) else own.removeprefix(f"{folder}{os.sep}")


def images_in_columns(
    file: ColumnFile, chosen: Mapping[str, str], split: str, folder: Path | None, fix: str
) -> list[LabelledImage]:
    """The images of a Parquet or Arrow file.

    Args:
        chosen: see `choose_columns`.
        split: of all, where no column is chosen for it.
        folder: that paths in it are relative to; None takes them as they are.
        fix: what to do if the column of images can't be one.

    Raises:
        PromptotError: a column is damaged, or that of images holds something else.
    """
    column = chosen["image"]
    paths = file.image_paths(column)
    if paths is None:
        raise PromptotError(f"The column '{column}' of '{file.path}' holds no images.", fix=fix)
    own, prefix = paths, f"{file.path}::{column}::"

    def place(row: int) -> str:
        path = own[row]
        if path is None:
            return f"{prefix}{row}"
        return path if folder is None else place_of(folder, path)

    return list_columns(chosen, file.values, place, split)


def _from_rows(
    rows: Iterable[Mapping[str, Any]], chosen: Mapping[str, str], folder: Path, split: str
) -> Iterator[LabelledImage]:
    for row in rows:
        own = {kind: row.get(column) for kind, column in chosen.items()}
        yield LabelledImage(
            place_of(folder, str(own["image"] or "")),
            own["label"],
            str(own.get("split", split) or ""),
            str(own.get("domain") or ""),
        )


def _read_text(path: Path) -> tuple[list[str], Iterable[Mapping[str, Any]]]:
    """The header and the rows of a table that is text."""
    fix = "Save it as UTF-8 text ('CSV UTF-8'); one that is too large for that as Parquet."
    with reading_errors(f"'{path}' can't be read", fix):
        text = read_text(path)
    lines = text.count("\n")
    if path.suffix.lower() in (".jsonl", ".ndjson"):
        check_rows(path, lines, len(text), more=10 * len(text))
        rows = [
            _json_row(line, path, n) for n, line in enumerate(text_lines(text), 1) if line.strip()
        ]
        return list({column: None for row in rows for column in row}), rows
    check_rows(path, lines, len(text))
    delimiter = "\t" if path.suffix.lower() == ".tsv" else _delimiter(text)
    cells = _cells(text, delimiter, path)
    header = next(cells, [])
    return header, _rows(header, cells, path)


def _cells(text: str, delimiter: str, path: Path) -> Iterator[list[str]]:
    try:
        yield from read_csv(text, delimiter)
    except Unreadable as error:
        problem = str(error)
        raise PromptotError(
            f"{problem[0].upper()}{problem[1:]}, in '{path}'.", fix="Repair it."
        ) from error


def _rows(
    header: Sequence[str], cells: Iterable[Sequence[str]], path: Path
) -> Iterator[dict[str, str]]:
    for number, row in enumerate(cells, start=2):
        if len(row) != len(header):
            raise PromptotError(
                f"Row {number} of '{path}' has more or fewer cells than the header.",
                fix="Put names that hold a comma into double quotes.",
            )
        yield dict(zip(header, row, strict=True))


def _delimiter(text: str) -> str:
    """Of a CSV file: what its header has most of. Spreadsheets of many countries write ";"."""
    header = text.partition("\n")[0]
    return max(",;\t", key=header.count)


def _json_row(line: str, path: Path, number: int) -> dict[str, Any]:
    with reading_errors(f"Line {number} of '{path}' can't be read", "Repair it."):
        row = parse_json(line, allow_nan=True)
    if not isinstance(row, dict):
        raise PromptotError(
            f"Line {number} of '{path}' is no JSON object.",
            fix='Write {"path": "a.jpg", "label": "cat"} a line.',
        )
    for column, value in row.items():
        if isinstance(value, dict | list) and column.strip().casefold() in _KNOWN:
            raise PromptotError(
                f"Line {number} of '{path}' has {brief(value)} as its '{brief(column)[1:-1]}'.",
                fix="Write text or a number.",
            )
    return row
