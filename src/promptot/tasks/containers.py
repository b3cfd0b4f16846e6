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
import tarfile
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

from promptot.errors import PromptotError
from promptot.tasks.file_version import times_of

MAX_BYTES = 1 << 30
_INSIDE = re.compile(r"(.+?\.(zip|tar|parquet|arrow))::(.+)", re.IGNORECASE | re.DOTALL)


class UnreadableImage(PromptotError):  # noqa: N818 - what it is, not how it ends
    """An image that can't be read: `path` says which, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"Can't read the image '{path}': {reason}.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # so that worker processes can pass it on


def split_place(name: str) -> tuple[str, str | None]:
    """The file that holds an image, and where in it; None if the file is the image.

    Example:
        >>> split_place("photos.zip::cat/1.jpg"), split_place("photos/1.jpg")
        (('photos.zip', 'cat/1.jpg'), ('photos/1.jpg', None))
    """
    found = _INSIDE.fullmatch(name)
    return (found[1], found[3]) if found else (name, None)


def open_bytes(name: str) -> BinaryIO:
    """Open the bytes at a place for reading. It never waits: pipes and devices are refused.

    Raises:
        UnreadableImage: it is no regular file, is empty or larger than 1 GiB, or there is no such
            member.
        OSError: the file can't be read; damaged archives raise errors of their own.
    """
    holder, member = split_place(name)
    state = _regular_file(holder, shown=name)
    if member is None:
        return Path(holder).open("rb")
    version = (holder, times_of(state), state.st_size)
    kind = Path(holder).suffix.lower()
    if kind == ".zip":
        content = _read_zip(name, version, member)
    elif kind == ".tar":
        content = _read_tar(name, version, member)
    else:
        content = _read_cell(name, version, member)
    if not content:
        raise UnreadableImage(name, "the file is empty")
    return io.BytesIO(content)


def _read_zip(name: str, version: tuple[str, int, int], member: str) -> bytes:
    # A handle shared with a forked process would share its position in the file: one per process.
    archive = _open_zip(*version, os.getpid())
    try:
        info = archive.getinfo(member)
    except KeyError:
        raise UnreadableImage(name, "the zip file has no such member") from None
    _check_size(name, info.file_size)
    return archive.read(info)


@lru_cache(maxsize=8)
def _open_zip(archive: str, modified: int, size: int, process: int) -> ZipFile:
    return ZipFile(archive)


def _read_tar(name: str, version: tuple[str, int, int], member: str) -> bytes:
    try:
        offset, size = tar_members(*version)[member]
    except KeyError:
        raise UnreadableImage(name, "the tar file has no such member") from None
    _check_size(name, size)
    with Path(version[0]).open("rb") as file:
        file.seek(offset)
        content = file.read(size)
    if len(content) < size:
        raise UnreadableImage(name, "the tar file is cut off")
    return content


@lru_cache(maxsize=64)
def tar_members(archive: str, modified: int, size: int) -> dict[str, tuple[int, int]]:
    """Where each regular file in an uncompressed tar file starts, and how long it is."""
    with tarfile.open(archive, "r:") as file:
        return {
            member.name.removeprefix("./"): (member.offset_data, member.size)
            for member in file
            if member.isreg() and not member.issparse()
        }


def list_tar(path: Path) -> list[str]:
    """The regular files in an uncompressed tar file, in their order."""
    state = path.stat()
    return list(tar_members(str(path), times_of(state), state.st_size))


def _read_cell(name: str, version: tuple[str, int, int], member: str) -> bytes:
    from promptot.tasks.columns import read_cell

    column, _, row = member.rpartition("::")
    if not row.isdigit():
        raise UnreadableImage(name, "a table's cell is written FILE::COLUMN::ROW")
    try:
        content = read_cell(*version, column, int(row))
    except (KeyError, IndexError):
        raise UnreadableImage(name, "the table has no such cell") from None
    if not isinstance(content, bytes):
        raise UnreadableImage(name, "the cell holds no image")
    _check_size(name, len(content))
    return content


def _check_size(name: str, size: int) -> None:
    if size > MAX_BYTES:
        raise UnreadableImage(name, "it is larger than 1 GiB")


def _regular_file(path: str, shown: str) -> os.stat_result:
    state = Path(path).stat()
    problem = None
    if stat.S_ISDIR(state.st_mode):
        problem = "it is a folder"
    elif not stat.S_ISREG(state.st_mode):
        problem = "it is a pipe or a device, not a file"
    elif state.st_size == 0:
        problem = "the file is empty"
    if problem:
        raise UnreadableImage(shown, problem)
    return state
