"""MATLAB 5 files, unpacked up to a bound and checked before SciPy builds anything of them.

SciPy believes what a file says: a packed variable may grow a thousandfold, a cell array may claim
more cells than memory holds, and cells in cells end the process. The format is described in
MATLAB's "MAT-File Format" (https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf).
"""

from __future__ import annotations

import io
import math
import struct
import zlib
from pathlib import Path
from typing import Any

from promptot.files.reading import Unreadable, read_bytes

LARGEST = 64 * 2**20
"""Bytes of a file, packed or unpacked; the largest list of a public data set takes some 8 MiB."""
DEEPEST = 20
"""Cells and structures in each other."""

_HEADER = 128
_MATRIX, _PACKED = 14, 15
_CELL, _STRUCT, _CHARACTERS, _NUMBERS = 1, 2, 4, range(6, 16)


def read_variable(path: Path, name: str) -> Any:
    """A variable of a MATLAB file, with singleton dimensions removed.

    Raises:
        Unreadable: it is no such file, too large, or claims more than it holds.
        Exception: of SciPy, for what else is wrong with it.
    """
    from scipy.io import loadmat

    unpacked = _unpack(read_bytes(path, LARGEST))
    return loadmat(io.BytesIO(unpacked), squeeze_me=True, variable_names=[name])[name]


def _unpack(content: bytes) -> bytes:
    """The same file with nothing packed, each of whose variables holds what it claims."""
    order = {b"IM": "<", b"MI": ">"}.get(content[126:_HEADER])
    if order is None or 0 in content[:4]:
        raise Unreadable("it is no MATLAB 5 file")
    pieces, total, start = [content[:_HEADER]], _HEADER, _HEADER
    while start + 8 <= len(content):
        kind, size = struct.unpack_from(order + "II", content, start)
        end = start + 8 + size
        piece = content[start:end]
        if kind == _PACKED:
            piece = zlib.decompressobj().decompress(piece[8:], LARGEST)
        total += len(piece)
        if total > LARGEST:
            raise Unreadable(f"it unpacks to more than {LARGEST // 2**20} MiB")
        element = _Elements(piece, order).take(_MATRIX)
        _check_matrix(element, order)
        pieces.append(struct.pack(order + "II", _MATRIX, len(element)) + bytes(element))
        start = end
    return b"".join(pieces)


class _Elements:
    """The elements of a file or of a matrix, one after the other."""

    def __init__(self, content: bytes | memoryview, order: str) -> None:
        self.content, self.order, self.start = memoryview(content), order, 0

    @property
    def left(self) -> int:
        return len(self.content) - self.start

    def take(self, *kinds: int) -> memoryview:
        """What the next element holds.

        Raises:
            Unreadable: it is of another kind, or cut short.
        """
        if self.left < 8:
            raise Unreadable("it is cut short")
        kind, size = struct.unpack_from(self.order + "II", self.content, self.start)
        begin, padded = self.start + 8, size + -size % 8
        if kind >> 16:  # at most four bytes, in the place of the second number
            kind, size, begin, padded = kind & 0xFFFF, kind >> 16, self.start + 4, 4
        if begin + size > len(self.content) or size > padded or (kinds and kind not in kinds):
            raise Unreadable("it is cut short or damaged")
        self.start = begin + padded
        return self.content[begin : begin + size]


def _check_matrix(content: memoryview, order: str, depth: int = 0) -> None:
    """Refuse a matrix, or one within it, that claims more than it holds."""
    if not content:  # an empty one within another
        return
    if depth > DEEPEST:
        raise Unreadable(f"it has more than {DEEPEST} levels")
    elements = _Elements(content, order)
    flags, sizes = elements.take(), elements.take()
    if len(flags) < 8 or len(sizes) % 4:
        raise Unreadable("it is damaged")
    kind = struct.unpack_from(order + "I", flags)[0] & 0xFF
    shape = struct.unpack(f"{order}{len(sizes) // 4}i", sizes)
    elements.take()  # its name
    count, fields = math.prod(shape), 1
    if kind == _STRUCT:
        length, names = elements.take(), elements.take()
        width = int.from_bytes(length[:4], "little" if order == "<" else "big")
        fields = len(names) // width if 0 < width <= len(names) else 0
    smallest = 8 if kind in (_CELL, _STRUCT) else 1
    if min(shape, default=0) < 0 or count * max(fields, 1) * smallest > max(elements.left, 64):
        raise Unreadable("a variable claims more than the file holds")
    if kind in (_CELL, _STRUCT):
        for _ in range(count * fields):
            _check_matrix(elements.take(_MATRIX), order, depth + 1)
    elif kind != _CHARACTERS and kind not in _NUMBERS:
        raise Unreadable("it holds other variables than texts, numbers, cells and structures")
