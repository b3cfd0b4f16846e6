"""Parquet and Arrow files, column by column and cell by cell; needs pyarrow.

Nothing in them is believed: the number of rows is held against the size of the file, offsets are
checked before a cell is touched, columns are read in pieces, and only those that are needed.
"""

from __future__ import annotations

import contextlib
import os
import struct
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from promptot.data.memory_bounds import check_rows
from promptot.data.parquet_pages import largest_page
from promptot.errors import PromptotError
from promptot.files.file_version import times_of
from promptot.files.reading import Unreadable, open_regular, parse_json

LONGEST_TEXT = 2**15
"""Bytes of a path or of a label."""
ROWS_TOGETHER = 2**13
IMAGES_TOGETHER = 64
LARGEST_GROUP = 2**30
"""Bytes of the images in a row group of a Parquet file, and of all that is packed in an Arrow file;
what is not packed stays on the disk."""
LARGEST_TOGETHER = 2**28
"""Bytes that the rows of a Parquet file read at a time may take, but for a single one."""

_one_at_a_time = threading.Lock()
"""Threads that want cells of one row group wait for the first of them to read it."""


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
        PromptotError: pyarrow is missing, the file is damaged, or it has more rows than fit.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        import_arrow(path)
        with _explained(path):
            with open_regular(path):
                pass
            state = path.stat()
            self._version = (str(path), times_of(state), state.st_size)
            if self._is_parquet:
                from pyarrow import parquet

                file = parquet.ParquetFile(path)
                self._schema, self.rows = file.schema_arrow, int(file.metadata.num_rows)
            else:
                table, _ = _arrow_table(*self._version)
                self._schema, self.rows = table.schema, int(table.num_rows)
        check_rows(path, self.rows, state.st_size)
        self.columns: list[str] = list(self._schema.names)
        self.class_names = _class_names((self._schema.metadata or {}).get(b"huggingface"))

    @property
    def _is_parquet(self) -> bool:
        return self.path.suffix.lower() == ".parquet"

    def values(self, column: str) -> list[Any]:
        """A whole column of texts, numbers or dates.

        Raises:
            PromptotError: it is damaged, or holds something else, or very long texts.
        """
        with _explained(self.path):
            kind = self._schema.field(column).type
            if not _is_plain(kind):
                raise Unreadable(f"the column '{column}' holds {kind!s:.60}, not text or numbers")
            found: list[Any] = []
            for chunk in self._chunks(column, ROWS_TOGETHER, shared=_is_text(kind)):
                found += _to_list(chunk)
            if len(found) != self.rows:
                raise Unreadable(f"it holds {len(found)} rows, not the {self.rows} that it claims")
            return found

    def image_paths(self, column: str) -> list[str | None] | None:
        """The paths in a column of images, None for those that hold their own bytes.

        The result is None if the column can't be one of images. Bytes are not read.

        Raises:
            PromptotError: it is damaged.
        """
        types = import_arrow(self.path).types
        with _explained(self.path):
            kind = self._schema.field(column).type
            if types.is_binary(kind) or types.is_large_binary(kind):
                return [None] * self.rows
            if _is_path(kind):
                return self.values(column)
            if types.is_struct(kind):
                inner = {field.name: field.type for field in kind}
                if {"bytes", "path"} <= inner.keys() and _is_path(inner["path"]):
                    return self._paths_without_bytes(column)
        return None

    def _paths_without_bytes(self, column: str) -> list[str | None]:
        """Of a column {bytes, path}: the path where there are no bytes."""
        from pyarrow import compute

        if self._has_all_bytes(column):
            return [None] * self.rows
        found: list[str | None] = []
        for chunk in self._chunks(column, IMAGES_TOGETHER):
            has_bytes = compute.is_valid(compute.struct_field(chunk, "bytes")).to_pylist()
            paths = _to_list(compute.struct_field(chunk, "path"))
            found += [None if own else path for own, path in zip(has_bytes, paths, strict=True)]
        if len(found) != self.rows:
            raise Unreadable(f"it holds {len(found)} rows, not the {self.rows} that it claims")
        return found

    def _has_all_bytes(self, column: str) -> bool:
        """Whether a Parquet file says that no row is without its bytes; then none need be read."""
        if not self._is_parquet:
            return False
        from pyarrow import parquet

        metadata = parquet.read_metadata(self.path)
        for group in range(metadata.num_row_groups):
            chunks = [metadata.row_group(group).column(i) for i in range(metadata.num_columns)]
            (own,) = [c for c in chunks if c.path_in_schema == f"{column}.bytes"] or [None]
            noted = None if own is None else own.statistics
            if noted is None or not noted.has_null_count or noted.null_count > 0:
                return False
        return True

    def _chunks(self, column: str, rows: int, shared: bool = False) -> Iterator[Any]:
        """A column in pieces that fit into memory; `shared` texts that repeat are there once."""
        if not self._is_parquet:
            for chunk in _arrow_table(*self._version)[0][column].chunks:
                for start in range(0, len(chunk), rows):
                    yield chunk.slice(start, rows)
            return
        from pyarrow import parquet

        file = parquet.ParquetFile(self.path, read_dictionary=[column] if shared else None)
        for group in range(file.metadata.num_row_groups):
            few = _rows_together(self.path, file.metadata, group, column, rows)
            for batch in file.iter_batches(few, row_groups=[group], columns=[column]):
                yield batch.column(0)


def read_cell(path: str, modified: int, size: int, column: str, row: int) -> Any:
    """One cell; of a cell {bytes, path} the bytes.

    Args:
        path, modified, size: the file, and what tells a replaced one from the one before.
        column: its name.
        row: from 0.

    Raises:
        KeyError, IndexError: there is no such column or row.
        Unreadable: the images beside it don't fit into memory.
    """
    if path.lower().endswith(".parquet"):
        group, start = _group_of(_group_sizes(path, modified, size), row)
        with _one_at_a_time:
            cells = _row_group(path, modified, size, group, column)
        cell = cells[row - start].as_py()
    else:
        with _one_at_a_time:
            places = _places_of_bytes(path, modified, size, column)
        if places is not None:
            return _read_place(path, int(places[0][row]), int(places[1][row]))
        cell = _arrow_table(path, modified, size)[0][column][row].as_py()
    return cell.get("bytes") if isinstance(cell, dict) else cell


def damaged(path: Path, error: Exception) -> PromptotError:
    """What to say of a table that can't be read."""
    reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
    return PromptotError(f"'{path}' can't be read: {reason:.300}.", fix="Write or copy it again.")


@contextlib.contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except PromptotError:
        raise
    except Exception as error:  # on damaged bytes pyarrow raises almost anything
        raise damaged(path, error) from error


def _is_text(kind: Any) -> bool:
    types = import_arrow("a table").types
    if types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(types.is_string(kind) or types.is_large_string(kind) or types.is_string_view(kind))


def _is_path(kind: Any) -> bool:
    return _is_text(kind) or bool(import_arrow("a table").types.is_null(kind))


def _is_plain(kind: Any) -> bool:
    """Whether a cell is a text, a number, a date or nothing."""
    types = import_arrow("a table").types
    if types.is_dictionary(kind):
        return _is_plain(kind.value_type)
    return _is_text(kind) or any(
        check(kind)
        for check in (types.is_integer, types.is_floating, types.is_boolean, types.is_null,
                      types.is_decimal, types.is_date)
    )  # fmt: skip


def _to_list(chunk: Any) -> list[Any]:
    """The values of a piece of a column, as Python has them; equal texts are one object.

    Raises:
        Unreadable: one is far too long.
    """
    from pyarrow import compute, types

    if types.is_dictionary(chunk.type):
        used = compute.unique(chunk.indices).drop_null()
        texts = dict(zip(used.to_pylist(), _to_list(chunk.dictionary.take(used)), strict=True))
        return [texts.get(place) for place in chunk.indices.to_pylist()]
    if _is_text(chunk.type):
        longest = compute.max(compute.binary_length(chunk)).as_py() or 0
        if longest > LONGEST_TEXT:
            raise Unreadable(f"it holds a path or a label of {longest:,} bytes")
    return list(chunk.to_pylist())


@lru_cache(maxsize=64)
def _group_sizes(path: str, modified: int, size: int) -> tuple[int, ...]:
    import_arrow(path)
    from pyarrow import parquet

    metadata = parquet.read_metadata(path)
    return tuple(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))


@lru_cache(maxsize=4)
def _row_group(path: str, modified: int, size: int, group: int, column: str) -> Any:
    """One column of one row group: images beside each other are mostly asked for together."""
    import pyarrow
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    if column not in file.schema_arrow.names:
        raise KeyError(column)
    pieces, held = [], 0
    rows = _rows_together(Path(path), file.metadata, group, column, IMAGES_TOGETHER)
    for batch in file.iter_batches(rows, row_groups=[group], columns=[column]):
        held += batch.nbytes
        if held > LARGEST_GROUP:
            raise Unreadable("its row group holds more than 1 GiB; write smaller row groups")
        pieces.append(batch.column(0))
    return pyarrow.chunked_array(pieces)


def _rows_together(path: Path, metadata: Any, group: int, column: str, rows: int) -> int:
    """How many rows of a column to read at a time, if not as many as asked for.

    A cell may be as large as the page that it stands in, and each cell may repeat one of a page's.

    Raises:
        Unreadable: a page claims to unpack to far more than it can.
    """
    about = metadata.row_group(group)
    chunks = [about.column(number) for number in range(about.num_columns)]
    with open_regular(path) as file:
        largest = max(
            (
                largest_page(file, chunk)
                for chunk in chunks
                if chunk.path_in_schema.split(".")[0] == column.split(".")[0]
            ),
            default=0,
        )
    return max(1, min(rows, LARGEST_TOGETHER // max(largest, 1)))


def _group_of(sizes: tuple[int, ...], row: int) -> tuple[int, int]:
    """The row group of a row, and the row that it starts with."""
    start = 0
    for group, rows in enumerate(sizes):
        if row < start + rows:
            return group, start
        start += rows
    raise IndexError(row)


@lru_cache(maxsize=64)
def _places_of_bytes(
    path: str, modified: int, size: int, column: str
) -> tuple[np.ndarray, np.ndarray] | None:
    """Where the images of a column are in an Arrow file: places and lengths, -1 of no image.

    The result is None if they are not there as they are: packed, or of a rarer type.
    """
    types = import_arrow(path).types
    table, start = _arrow_table(path, modified, size)
    places: list[np.ndarray] = [np.empty(0, np.int64)]
    lengths: list[np.ndarray] = [np.empty(0, np.int64)]
    for chunk in table[column].chunks:
        missing = chunk.is_null().to_numpy(zero_copy_only=False)
        inner = chunk
        if types.is_struct(chunk.type) and chunk.type.get_field_index("bytes") >= 0:
            inner = chunk.field("bytes")
        if not (types.is_binary(inner.type) or types.is_large_binary(inner.type)):
            return None
        _, offsets, content = inner.buffers()
        if len(inner) == 0 or content is None:
            return None
        if not start <= content.address <= content.address + content.size <= start + size:
            return None
        kind = np.dtype("i4" if types.is_binary(inner.type) else "i8")
        ends = np.frombuffer(offsets, kind)[inner.offset :][: len(inner) + 1].astype(np.int64)
        places.append(content.address - start + ends[:-1])
        missing |= inner.is_null().to_numpy(zero_copy_only=False)
        lengths.append(np.where(missing, -1, np.diff(ends)))
    return np.concatenate(places), np.concatenate(lengths)


def _read_place(path: str, start: int, length: int) -> bytes | None:
    """Bytes of a file, read and not mapped: one that was cut short must not end the process."""
    if length < 0:
        return None
    with open_regular(path) as file:
        file.seek(start)
        content = file.read(length)
    if len(content) < length:
        raise Unreadable("its table was cut short while it was in use")
    return content


@lru_cache(maxsize=64)
def _arrow_table(path: str, modified: int, size: int) -> tuple[Any, int]:
    """An Arrow file (a stream, as `datasets` writes it, or with an index), mapped into memory.

    Offsets that lead out of the file would end the process when a cell is touched: each is checked.

    Returns:
        The table, and the address that the file begins at.
    """
    arrow = import_arrow(path)
    with open_regular(path) as file:
        indexed = file.read(6) == b"ARROW1"
        if os.fstat(file.fileno()).st_size < size:
            raise Unreadable("its table was cut short while it was in use")
    mapped = arrow.memory_map(path)
    if indexed:
        mapped.seek(8)
    unpacked = _unpacked_size(arrow, mapped)
    if unpacked > LARGEST_GROUP:
        raise Unreadable(
            f"it holds {unpacked / 2**30:.1f} GiB of packed columns; write it without compression"
        )
    mapped.seek(0)
    open_reader = arrow.ipc.open_file if indexed else arrow.ipc.open_stream
    table = open_reader(mapped).read_all()
    table.validate(full=True)
    mapped.seek(0)
    return table, int(mapped.read_buffer(1).address)


def _unpacked_size(arrow: Any, stream: Any) -> int:
    """How many bytes the packed columns of a file in Arrow's format say that they unpack to.

    It is written in front of each packed buffer, as the format's specification
    (https://arrow.apache.org/docs/format/Columnar.html) says, and nowhere in the summary.
    """
    total = 0
    while True:
        try:
            message = arrow.ipc.read_message(stream)
        except (EOFError, arrow.ArrowInvalid, OSError):  # the end, or what `read_all` will refuse
            return total
        if message.type in ("record batch", "dictionary"):
            try:
                total += _unpacked_message(message)
            except struct.error:  # an offset out of the message, as above
                continue


def _unpacked_message(message: Any) -> int:
    """The same of one message: a flat buffer, whose tables are read by their fields' numbers."""
    head, body = memoryview(message.metadata), memoryview(message.body)

    def whole(kind: str, buffer: memoryview, place: int) -> int:
        (value,) = struct.unpack_from(f"<{kind}", buffer, place)
        return int(value)

    def field(table: int, number: int) -> int | None:
        """Where a field of a table is; None if it has none."""
        index = table - whole("i", head, table)
        if 4 + 2 * number >= whole("H", head, index):
            return None
        offset = whole("H", head, index + 4 + 2 * number)
        return table + offset if offset else None

    def follow(place: int | None) -> int | None:
        return None if place is None else place + whole("I", head, place)

    batch = follow(field(whole("I", head, 0), 2))
    if message.type == "dictionary" and batch is not None:
        batch = follow(field(batch, 1))
    if batch is None or field(batch, 3) is None:  # nothing is packed
        return 0
    buffers = follow(field(batch, 2))
    if buffers is None:
        return 0
    total = 0
    for number in range(whole("I", head, buffers)):
        start, length = struct.unpack_from("<qq", head, buffers + 4 + 16 * number)
        if length >= 8 and start >= 0:
            total += max(length, whole("q", body, start))
    return total


def _class_names(noted: bytes | None) -> dict[str, tuple[str, ...]]:
    """The class names in the note that `datasets` leaves in a file's schema."""
    try:
        return class_names_of(parse_json(noted or b"{}")["info"]["features"])
    except (Unreadable, KeyError, TypeError):
        return {}


def class_names_of(features: Any) -> dict[str, tuple[str, ...]]:
    """By column, the names of its integer labels, from features as `datasets` writes them.

    What is of another shape names nothing.
    """
    named = {
        column: feature.get("names")
        for column, feature in (features.items() if isinstance(features, dict) else ())
        if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
    }
    return {
        column: tuple(map(str, names))
        for column, names in named.items()
        if isinstance(names, list) and all(isinstance(name, str | int) for name in names)
    }
