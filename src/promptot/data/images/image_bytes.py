"""The bytes of an image, wherever they lie: a file, or a member of an archive or of a table.

A place is one string, so that it can be listed in a manifest, typed in a shell and sent to another
process: `photos/cat/1.jpg`, `photos.zip::cat/1.jpg`, `shard-000.tar::0001.jpg`, and for the cells
of a Parquet or Arrow table `train.parquet::image::17` (file, column, row). Nothing is ever unpacked
to the disk, and no link is followed out of an archive.
"""

from __future__ import annotations

import io
import os
import re
import stat
import struct
import tarfile
import threading
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO, NamedTuple
from zipfile import ZipFile, ZipInfo

from promptot.errors import PromptotError
from promptot.files.file_version import times_of
from promptot.files.reading import Unreadable, check_regular, open_regular

MAX_BYTES = 1 << 30
LARGE_BYTES = 1 << 25
MAX_RATIO = 200
"""How much larger than packed a member of more than `LARGE_BYTES` may be: pictures pack badly."""
LARGEST_DIRECTORY = 1 << 29
"""Bytes of the list of files in a zip file; it takes up to twenty times as much memory."""
_INSIDE = re.compile(r"(.+?\.(zip|tar|parquet|arrow))::(.+)", re.IGNORECASE | re.DOTALL)


class UnreadableImage(PromptotError):  # noqa: N818 - what it is, not how it ends
    """An image that can't be read: `path` says which, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"Can't read the image '{path}': {reason}.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # so that worker processes can pass it on


class HolderVersion(NamedTuple):
    """An archive or a table, and what tells it from the one that had its place before."""

    path: str
    times: int
    size: int


def split_place(name: str) -> tuple[str, str | None]:
    """The file that holds an image, and where in it; None if the file is the image.

    Example:
        >>> split_place("photos.zip::cat/1.jpg"), split_place("photos/1.jpg")
        (('photos.zip', 'cat/1.jpg'), ('photos/1.jpg', None))
    """
    found = _INSIDE.fullmatch(name)
    return (found[1], found[3]) if found else (name, None)


def open_bytes(name: str) -> io.BufferedReader | io.BytesIO:
    """Open the bytes at a place for reading. It never waits: pipes and devices are refused.

    Of the members of archives that are larger than `LARGE_BYTES` one is in memory at a time: until
    it is closed, other threads wait with theirs.

    Raises:
        UnreadableImage: it is no regular file, is empty or larger than 1 GiB, or there is no such
            member.
        OSError: the file can't be read; damaged archives raise errors of their own.
    """
    try:
        holder, member = split_place(name)
        state = Path(holder).stat()
        if stat.S_ISDIR(state.st_mode):
            raise Unreadable("it is a folder")
        check_regular(state.st_mode)
        if state.st_size == 0:
            raise Unreadable("the file is empty")
        if member is None:
            return open_regular(holder)
        read = _READERS.get(Path(holder).suffix.lower(), _read_cell)
        file = read(HolderVersion(holder, times_of(state), state.st_size), member)
        if file.getbuffer().nbytes == 0:
            file.close()
            raise Unreadable("the file is empty")
        return file
    except Unreadable as error:
        raise UnreadableImage(name, error.reason) from error


class _Large(io.BytesIO):
    """The bytes of a large member; there is one at a time, until it is closed."""

    _turn = threading.Lock()

    def close(self) -> None:
        if not self.closed:
            super().close()
            self._turn.release()


def _in_turn(size: int, read: Callable[[], bytes]) -> io.BytesIO:
    """What `read` gives, about `size` bytes; large ones one at a time."""
    if size <= LARGE_BYTES:
        return io.BytesIO(read())
    _Large._turn.acquire()
    try:
        return _Large(read())
    except BaseException:
        _Large._turn.release()
        raise


def _read_zip(version: HolderVersion, member: str) -> io.BytesIO:
    # A handle shared with a forked process would share its position in the file: one per process.
    archive = _open_zip(*version, os.getpid())
    try:
        info = _member(archive, member)
    except KeyError:
        raise Unreadable("the zip file has no such member") from None
    _check_size(info.file_size)
    packed = max(1, info.compress_size)
    if info.file_size > LARGE_BYTES and info.file_size > MAX_RATIO * packed:
        times = info.file_size // packed
        raise Unreadable(f"it is {times} times as large as packed, which no picture is")
    return _in_turn(info.file_size, lambda: archive.read(info))


def _member(archive: ZipFile, member: str) -> ZipInfo:
    """A member by its path with slashes; programs of Windows write some with backslashes.

    Raises:
        KeyError: there is none.
    """
    try:
        return archive.getinfo(member)
    except KeyError:
        return archive.getinfo(member.replace("/", "\\"))


@lru_cache(maxsize=8)
def _open_zip(archive: str, modified: int, size: int, process: int) -> ZipFile:
    with open_regular(archive) as file:
        _check_directory(file)
    return ZipFile(archive)


def list_zip(path: Path) -> list[str]:
    """The names of the files in a zip file, in their order.

    Raises:
        Unreadable: it is no regular file, or its list of files is far too long.
        BadZipFile: it is damaged.
    """
    with open_regular(path) as file:
        _check_directory(file)
        with ZipFile(file) as archive:
            return [info.filename for info in archive.infolist() if not info.is_dir()]


def _check_directory(file: BinaryIO) -> None:
    size = _directory_size(file)
    if size > LARGEST_DIRECTORY:
        raise Unreadable(f"its list of files takes {size / 2**20:.0f} MiB; divide it")
    file.seek(0)


def _directory_size(file: BinaryIO) -> int:
    """Bytes of the list of files at the end of a zip file, as it says; 0 if it says nothing.

    See sections 4.3.14 to 4.3.16 of the format's specification (APPNOTE.TXT).
    """
    end = file.seek(0, os.SEEK_END)
    start = max(0, end - (1 << 16) - 22)
    file.seek(start)
    tail = file.read()
    place = tail.rfind(b"PK\5\6")
    if place < 0 or len(tail) < place + 22:
        return 0
    (size,) = struct.unpack_from("<I", tail, place + 12)
    if place >= 20 and tail[place - 20 : place - 16] == b"PK\6\7":
        (offset,) = struct.unpack_from("<Q", tail, place - 12)
        if offset <= end - 56:
            file.seek(offset)
            record = file.read(56)
            if record[:4] == b"PK\6\6":
                (size,) = struct.unpack_from("<Q", record, 40)
    return int(size)


def _read_tar(version: HolderVersion, member: str) -> io.BytesIO:
    try:
        offset, size = tar_members(*version)[member]
    except KeyError:
        raise Unreadable("the tar file has no such member") from None
    _check_size(size)

    def read() -> bytes:
        with open_regular(version.path) as file:
            file.seek(offset)
            content = file.read(size)
        if len(content) < size:
            raise Unreadable("the tar file is cut off")
        return content

    return _in_turn(size, read)


@lru_cache(maxsize=64)
def tar_members(archive: str, modified: int, size: int) -> dict[str, tuple[int, int]]:
    """Where each regular file in an uncompressed tar file starts, and how long it is."""
    found = {}
    with open_regular(archive) as opened, tarfile.open(fileobj=opened, mode="r:") as file:
        while (member := file.next()) is not None:
            if member.isreg() and not member.issparse():
                found[member.name.removeprefix("./")] = member.offset_data, member.size
            file.members = []  # type: ignore[attr-defined]  # or it keeps all it knows of each
    return found


def list_tar(path: Path) -> list[str]:
    """The regular files in an uncompressed tar file, in their order."""
    state = path.stat()
    return list(tar_members(str(path), times_of(state), state.st_size))


def _read_cell(version: HolderVersion, member: str) -> io.BytesIO:
    from promptot.data.arrow_columns import read_cell

    column, _, row = member.rpartition("::")
    if not row.isdecimal() or len(row) > 18:
        raise Unreadable("a table's cell is written FILE::COLUMN::ROW")
    try:
        content = read_cell(*version, column, int(row))
    except (KeyError, IndexError):
        raise Unreadable("the table has no such cell") from None
    if not isinstance(content, bytes):
        raise Unreadable("the cell holds no image")
    _check_size(len(content))
    return io.BytesIO(content)


_READERS = {".zip": _read_zip, ".tar": _read_tar}


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise Unreadable("it is larger than 1 GiB")
