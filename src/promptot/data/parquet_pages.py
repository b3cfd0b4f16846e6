"""What the pages of a Parquet file say that they unpack to, read before pyarrow believes it.

A page says its own size, whatever the file's summary says, and pyarrow takes that much memory for
it. The header is a structure of Thrift's compact protocol, described in
https://github.com/apache/parquet-format and
https://github.com/apache/thrift/blob/master/doc/specs/thrift-compact-protocol.md.
"""

from __future__ import annotations

from typing import Any, BinaryIO

from promptot.files.reading import Unreadable

UNSUSPICIOUS = 32 * 2**20
"""Bytes that a page may unpack to, however small it is."""
MOST_TIMES = 200
"""So many times as large as packed may a larger one be."""
LARGEST = 2**30
_LONGEST_HEADER = 2**20
_UNPACKED, _PACKED = 2, 3  # fields of a page's header
_DEEPEST = 16


def largest_page(file: BinaryIO, chunk: Any) -> int:
    """Bytes of the largest page of a column in a row group, unpacked.

    Args:
        file: the Parquet file.
        chunk: pyarrow's description of the column in the row group.

    Raises:
        Unreadable: a page claims too much, or reaches out of its column.
    """
    starts = [chunk.data_page_offset]
    if chunk.has_dictionary_page and chunk.dictionary_page_offset:
        starts.append(chunk.dictionary_page_offset)
    place = min(starts)
    end = place + chunk.total_compressed_size
    largest = 0
    while place < end:
        length, fields = _header(file, place)
        unpacked, packed = fields.get(_UNPACKED, -1), fields.get(_PACKED, -1)
        place += length + packed
        if min(unpacked, packed) < 0 or place > end:
            raise Unreadable("a page of it is damaged")
        if unpacked > min(LARGEST, max(UNSUSPICIOUS, MOST_TIMES * packed)):
            raise Unreadable(
                f"a page of {packed:,} bytes claims to unpack to {unpacked / 2**20:,.0f} MiB"
            )
        largest = max(largest, unpacked)
    return largest


def _header(file: BinaryIO, place: int) -> tuple[int, dict[int, int]]:
    """How long the header of a page is, and the whole numbers in it by their fields."""
    size = 256
    while True:
        file.seek(place)
        content = file.read(size)
        try:
            reader = _Compact(content)
            fields = reader.structure()
            return reader.place, fields
        except IndexError:
            if len(content) < size or size >= _LONGEST_HEADER:
                raise Unreadable("a page of it is damaged") from None
        size *= 16


class _Compact:
    """A reader of Thrift's compact protocol that keeps whole numbers and passes over the rest."""

    def __init__(self, content: bytes) -> None:
        self.content, self.place = content, 0

    def structure(self, depth: int = 0) -> dict[int, int]:
        found: dict[int, int] = {}
        field = 0
        while (head := self._byte()) != 0:
            step, kind = head >> 4, head & 15
            field = field + step if step else self._signed()
            value = 0 if kind in (1, 2) else self._value(kind, depth)
            if kind in (4, 5, 6):
                found[field] = value
        return found

    def _value(self, kind: int, depth: int) -> int:
        if depth > _DEEPEST:
            raise Unreadable("a page of it is damaged")
        if kind in (1, 2, 3):  # in a list each truth has a byte
            self._byte()
        elif kind in (4, 5, 6):
            return self._signed()
        elif kind == 7:
            self._pass(8)
        elif kind == 8:
            self._pass(self._whole())
        elif kind in (9, 10):
            head = self._byte()
            count = head >> 4 if head >> 4 < 15 else self._whole()
            for _ in range(count):
                self._value(head & 15, depth + 1)
        elif kind == 12:
            self.structure(depth + 1)
        else:  # Parquet has no maps
            raise Unreadable("a page of it is damaged")
        return 0

    def _pass(self, count: int) -> None:
        self.place += count
        if self.place > len(self.content):
            raise IndexError

    def _byte(self) -> int:
        self.place += 1
        return self.content[self.place - 1]

    def _whole(self) -> int:
        value = shift = 0
        while True:
            byte = self._byte()
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value
            if shift > 63:
                raise Unreadable("a page of it is damaged")

    def _signed(self) -> int:
        value = self._whole()
        return (value >> 1) ^ -(value & 1)
