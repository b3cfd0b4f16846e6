"""Tables of images and labels: CSV, TSV, JSON lines, Parquet, Arrow, data frames."""

from __future__ import annotations

import contextlib
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptot.data.arrow_columns import ColumnFile
from promptot.data.memory_bounds import check_rows
from promptot.data.readers.given_paths import place_of
from promptot.data.readers.labelled_images import Found, assemble, by_number, with_notes
from promptot.data.readers.split_words import common_splits, split_in_name, split_of
from promptot.data.task import Held, ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import Unreadable, brief, parse_json, read_csv, read_text, text_lines

COLUMNS = {
    "image": ("path", "image", "file_name", "filename", "file", "filepath", "image_path", "img"),
    "label": ("label", "class", "class_name", "labels", "category", "target", "fine_label"),
    "split": ("split",),
    "domain": ("domain", "style"),
}
"""What each column may be called (case is ignored), the likeliest first."""
_KNOWN = frozenset(name for names in COLUMNS.values() for name in names)

TEXT_TABLES = (".csv", ".tsv", ".jsonl", ".ndjson")
COLUMN_TABLES = (".parquet", ".arrow")


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
    found: list[Found] = []
    notes: dict[str, None] = {}
    label_names: Sequence[str] | None = None
    told = bool(where)  # whether anything says what the splits are
    for path, split in zip(paths, splits, strict=True):
        if path.suffix.lower() in COLUMN_TABLES:
            file = ColumnFile(path)
            header: Sequence[str] = file.columns
            chosen = choose_columns(header, str(path), columns)
            found += _from_columns(file, chosen, split)
            label_names = file.class_names.get(chosen["label"], label_names)
        else:
            header, rows = _read_text(path)
            chosen = choose_columns(header, str(path), columns)
            found += _from_rows(rows, chosen, path.parent, split)
        if "split" in chosen:
            told, where = True, ""
        notes |= dict.fromkeys(_of_columns(header, chosen, columns))
    if not told:
        found, where, why_not = _splits_in_paths(found, paths[0].parent)
        notes |= dict.fromkeys(why_not)
    task = by_number(assemble(name, found, label_names, splits_from=where))
    return with_notes(task, *notes)


def load_frame(frame: Any, name: str, columns: Mapping[str, str] | None = None) -> ImageTask:
    """Read a data frame (pandas, polars, …); its images may be paths, PIL images or arrays.

    Raises:
        PromptotError: a column is missing.
    """
    header = [str(column) for column in frame.columns]
    chosen = choose_columns(header, "the table", columns)
    cells = {kind: list(frame[column]) for kind, column in chosen.items()}
    rows = [
        dict(zip(chosen.values(), row, strict=True)) for row in zip(*cells.values(), strict=True)
    ]
    found = list(_from_rows(rows, chosen, Path(), "", held=cells["image"], name=name))
    notes, where = _of_columns(header, chosen, columns), ""
    if "split" not in chosen:
        found, where, why_not = _splits_in_paths(found, Path())
        notes += why_not
    return with_notes(assemble(name, found, splits_from=where), *notes)


def choose_columns(
    header: Sequence[str],
    where: str,
    columns: Mapping[str, str] | None = None,
    needed: Sequence[str] = ("image", "label"),
) -> dict[str, str]:
    """The header's names of the columns "image" and "label", and "split" and "domain" if any.

    Raises:
        PromptotError: one that is needed, or was asked for, is missing.
    """
    by_name = {text.strip().casefold(): text for text in header}
    chosen: dict[str, str] = {}
    unknown = set(columns or ()) - set(COLUMNS)
    if unknown:
        raise PromptotError(
            f"There is no kind of column '{min(unknown)}'.", fix=f"Valid: {', '.join(COLUMNS)}."
        )
    for kind, usual in COLUMNS.items():
        wanted = (columns or {}).get(kind)
        choices = usual if wanted is None else (wanted.casefold(),)
        match = next((by_name[text] for text in choices if text in by_name), None)
        if match is not None:
            chosen[kind] = match
        elif wanted is not None or kind in needed:
            raise PromptotError(
                f"'{where}' has no column '{wanted or kind}'; it has {_listed(header)}.",
                fix=f"Call it one of {', '.join(choices)}, or say which it is with columns: "
                f"{{{kind}: NAME}}.",
            )
    return chosen


def header_of(path: Path) -> list[str]:
    """The names of a table's columns.

    Raises:
        PromptotError: it is damaged.
    """
    if path.suffix.lower() in COLUMN_TABLES:
        return ColumnFile(path).columns
    return _read_text(path)[0]


def label_column(header: Sequence[str], columns: Mapping[str, str] | None = None) -> str | None:
    """The column of labels, see `choose_columns`; None if there is none."""
    with contextlib.suppress(PromptotError):
        own = {kind: text for kind, text in (columns or {}).items() if kind == "label"}
        return choose_columns(header, "", own, needed=("label",))["label"]
    return None


def _of_columns(
    header: Sequence[str], chosen: Mapping[str, str], columns: Mapping[str, str] | None
) -> list[str]:
    """A sentence where another column might hold the labels as well."""
    usual = [text for text in header if text.strip().casefold() in COLUMNS["label"]]
    others = [text for text in usual if text != chosen["label"]]
    if not others or "label" in (columns or {}):
        return []
    listed = ", ".join(f"'{text}'" for text in others)
    return [f"The column '{chosen['label']}' was taken for the labels, and not {listed}."]


def _splits_in_paths(found: list[Found], folder: Path) -> tuple[list[Found], str, list[str]]:
    """The images of a table without splits, with those that folders in their paths are called as.

    Returns:
        the images, where the splits are from ("" if nowhere), and what to say if they are not.
    """
    places = [_folder_of(item, folder) for item in found]
    folders = {place: Path(place).parts for place in set(places) if place is not None}
    if not any(split_of(text) for parts in folders.values() for text in parts):
        return found, "", []
    words = common_splits(list(folders.values()))
    if words is not None:
        if None in places:
            note = "Folders in some paths are called as splits; they were not taken so."
            return found, "", [note]
        word_of = dict(zip(folders, words, strict=True))
        found = [
            replace(item, split=word_of[str(place)])
            for item, place in zip(found, places, strict=True)
        ]
        return found, "the folders in the paths", []
    counts = Counter(
        text
        for item, place in zip(found, places, strict=True)
        for text in set(folders.get(str(place), ()))
        if split_of(text) and text.casefold() != str(item.label).strip().casefold()
    )
    if not counts:
        return found, "", []
    word, count = counts.most_common(1)[0]
    above = any(Path(place).is_absolute() for place in folders)  # such as somebody's home
    if count == len(found) and (split_of(word) == "train" or above):
        return found, "", []
    every = "every path has" if count == len(found) else f"{count} of {len(found)} paths have"
    note = (
        f"The folder '{word}', which {every}, was not taken for a split: there is no other at its "
        "place in all paths. A column 'split' says it for sure."
    )
    return found, "", [note]


def _folder_of(item: Found, folder: Path) -> str | None:
    """The folder of an image, from `folder` on if it lies there; None if it has no path."""
    if item.held is not None or "::" in item.path:
        return None
    own = os.path.dirname(item.path)  # noqa: PTH120 - of a million rows
    return "" if own == str(folder) else own.removeprefix(f"{folder}{os.sep}")


def _from_columns(file: ColumnFile, chosen: dict[str, str], split: str) -> Iterator[Found]:
    column = chosen["image"]
    paths = file.image_paths(column)
    if paths is None:
        raise PromptotError(
            f"The column '{column}' of '{file.path}' holds no images.",
            fix="It should hold paths, bytes of image files, or {bytes, path}.",
        )
    labels = file.values(chosen["label"])
    splits = file.values(chosen["split"]) if "split" in chosen else [split] * file.rows
    domains = file.values(chosen["domain"]) if "domain" in chosen else [""] * file.rows
    prefix, folder = f"{file.path}::{column}::", file.path.parent
    for row, (path, label, part, domain) in enumerate(
        zip(paths, labels, splits, domains, strict=True)
    ):
        place = f"{prefix}{row}" if path is None else place_of(folder, path)
        yield Found(place, label, str(part or ""), str(domain or ""))


def _from_rows(
    rows: Iterable[Mapping[str, Any]],
    chosen: dict[str, str],
    folder: Path,
    split: str,
    held: Sequence[Any] | None = None,
    name: str = "",
) -> Iterator[Found]:
    for number, row in enumerate(rows):
        image = row.get(chosen["image"])
        part = row.get(chosen["split"]) if "split" in chosen else split
        domain = row.get(chosen["domain"]) if "domain" in chosen else ""
        own = None
        if held is not None and not isinstance(image, str | Path):
            path, own = f"{name}[{number}]", Held(held, number)
        else:
            path = place_of(folder, str(image or ""))
        yield Found(path, row.get(chosen["label"]), str(part or ""), str(domain or ""), own)


def _listed(header: Sequence[str], most: int = 20) -> str:
    """Names of columns, for a message."""
    shown = ", ".join(text if len(text) <= 40 else f"{text[:40]}…" for text in header[:most])
    more = f" and {len(header) - most} more" if len(header) > most else ""
    return f"{shown}{more}" or "none"


def _read_text(path: Path) -> tuple[list[str], Iterable[Mapping[str, Any]]]:
    """The header and the rows of a table that is text."""
    try:
        text = read_text(path)
    except Unreadable as error:
        fix = "Save it as UTF-8 text ('CSV UTF-8'); one that is too large for that as Parquet."
        raise PromptotError(f"'{path}' can't be read: {error}.", fix=fix) from error
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
    try:
        row = parse_json(line, allow_nan=True)
    except Unreadable as error:
        raise PromptotError(
            f"Line {number} of '{path}' can't be read: {error}.", fix="Repair it."
        ) from error
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
