"""Parquet and Arrow files, column by column and cell by cell; needs pyarrow."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError
from promptot.tasks.file_version import times_of


def import_arrow(path: object) -> Any:
    """The module pyarrow.

    Raises:
        PromptotError: it is not installed.
    """
    try:
        import pyarrow
    except ImportError:
        raise PromptotError(
            f"Reading '{path}' needs pyarrow.", fix="pip install 'promptot[data]'"
        ) from None
    return pyarrow


class ColumnFile:
    """What is in a Parquet or Arrow file, without its images.

    Attributes:
        columns: the names of the columns.
        rows: how many.
        class_names: by column, the names of its integer labels, where Hugging Face's `datasets` has
            noted them.

    Raises:
        PromptotError: pyarrow is missing, or the file is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        arrow = import_arrow(path)
        try:
            if path.suffix.lower() == ".parquet":
                from pyarrow import parquet

                file = parquet.ParquetFile(path)
                self._schema, self.rows = file.schema_arrow, file.metadata.num_rows
            else:
                state = path.stat()
                table = _arrow_table(str(path), times_of(state), state.st_size)
                self._schema, self.rows = table.schema, table.num_rows
        except (arrow.ArrowException, OSError) as error:
            raise damaged(path, error) from error
        self.columns: list[str] = list(self._schema.names)
        self.class_names = _class_names((self._schema.metadata or {}).get(b"huggingface"))

    def values(self, column: str) -> list[Any]:
        """A whole column."""
        arrow = import_arrow(self.path)
        try:
            if self.path.suffix.lower() == ".parquet":
                from pyarrow import parquet

                return list(parquet.read_table(self.path, columns=[column])[column].to_pylist())
            state = self.path.stat()
            table = _arrow_table(str(self.path), times_of(state), state.st_size)
            return list(table[column].to_pylist())
        except (arrow.ArrowException, OSError) as error:
            raise damaged(self.path, error) from error

    def image_paths(self, column: str) -> list[str | None] | None:
        """The paths in a column of images, None for those that hold their own bytes.

        The result is None if the column can't be one of images. Bytes are not read.
        """
        types = import_arrow(self.path).types
        kind = self._schema.field(column).type
        if types.is_binary(kind) or types.is_large_binary(kind):
            return [None] * self.rows
        if types.is_string(kind) or types.is_large_string(kind):
            return self.values(column)
        if types.is_struct(kind) and {"bytes", "path"} <= {field.name for field in kind}:
            return self._paths_without_bytes(column)
        return None

    def _paths_without_bytes(self, column: str) -> list[str | None]:
        """Of a column {bytes, path}: the path where there are no bytes."""
        from pyarrow import compute

        found: list[str | None] = []
        for chunk in self._chunks(column):
            has_bytes = compute.is_valid(compute.struct_field(chunk, "bytes")).to_pylist()
            paths = compute.struct_field(chunk, "path").to_pylist()
            found += [None if own else path for own, path in zip(has_bytes, paths, strict=True)]
        return found

    def _chunks(self, column: str) -> Any:
        """A column in pieces that fit into memory."""
        if self.path.suffix.lower() != ".parquet":
            state = self.path.stat()
            yield from _arrow_table(str(self.path), times_of(state), state.st_size)[column].chunks
            return
        from pyarrow import parquet

        for batch in parquet.ParquetFile(self.path).iter_batches(256, columns=[column]):
            yield batch.column(0)


def read_cell(path: str, modified: int, size: int, column: str, row: int) -> Any:
    """One cell; of a cell {bytes, path} the bytes.

    Args:
        path, modified, size: the file, and what tells a replaced one from the one before.
        column: its name.
        row: from 0.

    Raises:
        KeyError, IndexError: there is no such column or row.
    """
    if path.lower().endswith(".parquet"):
        group, start = _group_of(_group_sizes(path, modified, size), row)
        cell = _row_group(path, modified, size, group, column)[row - start].as_py()
    else:
        cell = _arrow_table(path, modified, size)[column][row].as_py()
    return cell.get("bytes") if isinstance(cell, dict) else cell


def damaged(path: Path, error: Exception) -> PromptotError:
    """What to say of a table that can't be read."""
    return PromptotError(f"'{path}' can't be read: {error}.", fix="Write or copy it again.")


@lru_cache(maxsize=64)
def _group_sizes(path: str, modified: int, size: int) -> tuple[int, ...]:
    import_arrow(path)
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


@lru_cache(maxsize=4)
def _row_group(path: str, modified: int, size: int, group: int, column: str) -> Any:
    """One column of one row group: images beside each other are mostly asked for together."""
    from pyarrow import parquet

    return parquet.ParquetFile(path).read_row_group(group, columns=[column])[column]


def _group_of(sizes: tuple[int, ...], row: int) -> tuple[int, int]:
    """The row group of a row, and the row that it starts with."""
    start = 0
    for group, rows in enumerate(sizes):
        if row < start + rows:
            return group, start
        start += rows
    raise IndexError(row)


@lru_cache(maxsize=64)
def _arrow_table(path: str, modified: int, size: int) -> Any:
    """An Arrow file (a stream, as `datasets` writes it, or with an index), mapped into memory."""
    arrow = import_arrow(path)
    mapped = arrow.memory_map(path)
    try:
        return arrow.ipc.open_stream(mapped).read_all()
    except arrow.ArrowInvalid:
        return arrow.ipc.open_file(arrow.memory_map(path)).read_all()


def _class_names(noted: bytes | None) -> dict[str, tuple[str, ...]]:
    """The class names in the note that `datasets` leaves in a file's schema."""
    try:
        features = json.loads(noted or b"{}")["info"]["features"]
        return class_names_of(features)
    except (ValueError, KeyError, TypeError):
        return {}


def class_names_of(features: dict[str, Any]) -> dict[str, tuple[str, ...]]:
    """By column, the names of its integer labels, from features as `datasets` writes them."""
    return {
        column: tuple(map(str, feature["names"]))
        for column, feature in features.items()
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
