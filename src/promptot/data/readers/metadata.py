"""Folders that a table of metadata lies in, as Hugging Face's image folders have them."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from pathlib import Path

from promptot.data.readers.columns import label_column
from promptot.data.readers.folder import all_images, class_folders, entries_in, load_folder
from promptot.data.readers.labelled_images import with_notes
from promptot.data.readers.layout_notes import METADATA
from promptot.data.readers.split_words import split_of
from promptot.data.readers.table import header_of, load_table
from promptot.data.task import ImageTask
from promptot.errors import PromptotError


def load_with_metadata(
    path: Path, name: str, columns: Mapping[str, str] | None = None
) -> ImageTask | None:
    """Read a folder with a table of metadata in it, or in each of its split folders.

    A table without labels (of captions, say) is not used where class folders say the labels.

    Returns:
        the task; None if there is no such table.

    Raises:
        PromptotError: a table is damaged; some split folders have one, and others none; or neither
            a table nor folders say the labels.
    """
    path = _unwrap(path)
    table = metadata_in(path)
    if table is not None:
        return _load([table], None, path, name, columns)
    splits = _split_folders(path)
    tables = [metadata_in(folder) for folder in splits]
    present = [table for table in tables if table is not None]
    if not present:
        return None
    if len(present) < len(splits):
        if not any(_label_column(table, columns) for table in present):
            return _by_folders(path, present)
        without = [folder.name for folder, own in zip(splits, tables, strict=True) if own is None]
        raise PromptotError(
            f"Of the split folders in '{path}', '{present[0].parent.name}' has a table "
            f"'{present[0].name}', and '{without[0]}' has none.",
            fix="Give each split folder its table, or write one table above them.",
        )
    return _load(present, [folder.name for folder in splits], path, name, columns)


def metadata_in(folder: Path) -> Path | None:
    """The table of metadata in a folder, in any case; None if there is none."""
    files = {file.name.lower(): file for file in entries_in(folder)}
    tables = (files[name] for name in METADATA if name in files)
    return next((table for table in tables if table.is_file()), None)


def _load(
    tables: list[Path],
    splits: list[str] | None,
    path: Path,
    name: str,
    columns: Mapping[str, str] | None,
) -> ImageTask:
    column, *others = (_label_column(table, columns) for table in tables)
    if not any((column, *others)):
        with contextlib.suppress(PromptotError):  # the table's own says which columns it lacks
            return _by_folders(path, tables)
    task = load_table(tables, name, columns, splits)
    return with_notes(
        task,
        f"Labels are taken from the column '{column}' of '{tables[0].name}', not from folders.",
        *_of_unlisted(path, task),
    )


def _of_unlisted(path: Path, task: ImageTask) -> list[str]:
    """A sentence on images in the folder that the table does not list."""
    places = [*(e.path for e in task.examples), *(item.path for item in task.skipped)]
    if any("::" in place for place in places):
        return []
    listed = {Path(place).absolute() for place in places}
    missing = [image for image in all_images(path) if Path(image).absolute() not in listed]
    if not missing:
        return []
    images = "1 image" if len(missing) == 1 else f"{len(missing)} images"
    return [f"The table does not list {images} of the folder, such as '{missing[0]}': left out."]


def _by_folders(path: Path, tables: list[Path]) -> ImageTask:
    task = load_folder(path)
    return with_notes(
        task,
        f"The folders were taken for the classes: '{tables[0].name}' has no column of labels, and "
        "was not used.",
    )


def _label_column(table: Path, columns: Mapping[str, str] | None) -> str | None:
    return label_column(header_of(table), columns)


def _unwrap(path: Path) -> Path:
    """The folder inside `path`, if that is all there is and a table lies in it or in its splits."""
    inner = class_folders(path)
    if metadata_in(path) is not None or len(inner) != 1 or _split_folders(path):
        return path
    return inner[0] if any(map(metadata_in, (inner[0], *_split_folders(inner[0])))) else path


def _split_folders(path: Path) -> list[Path]:
    return [folder for folder in class_folders(path) if split_of(folder.name) is not None]
