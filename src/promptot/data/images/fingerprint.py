"""What an image is known by, wherever it lies, so that results of it can be found again.

No file is read for it, so that hundreds of thousands cost seconds: a file, or the archive or table
that holds the image, is known by its size and times. Only an image in memory is known by its
content.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from promptot.data.images.image_bytes import split_place
from promptot.files.file_version import FileVersion

MISSING = FileVersion(-1, 0, 0)  # whoever reads it will say what is wrong


@dataclass(frozen=True)
class Fingerprint:
    """What an image is known by.

    Attributes:
        name: the last two names of its path, or its place in what holds it; "" in memory.
        version: of the file, or of the archive or table; None in memory.
        place: the path of that file without links; "" in memory.
        content: SHA-256 of an image in memory, see `image_hash`; "" of one in a file.
    """

    name: str = ""
    version: FileVersion | None = None
    place: str = ""
    content: str = ""

    @property
    def here(self) -> str:
        """32 hex digits, for what is kept on this machine: another file in its place differs."""
        return _digest(self.place, self.name, self.content, *(self.version or ()))

    @property
    def anywhere(self) -> str:
        """32 hex digits that stay when a folder or an archive moves, or a copy keeps its times."""
        kept = () if self.version is None else (self.version.size, self.version.modified)
        return _digest(self.name, self.content, *kept)

    @property
    def published(self) -> str:
        """32 hex digits of name and size: of files that others fetch anew, times say nothing."""
        return _digest(self.name, self.content, *(() if self.version is None else self.version[:1]))


class Looks:
    """What was found out about folders and archives, so that each is looked at once.

    It is for one pass over many images: nobody would notice a file that changes meanwhile.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._holders: dict[str, FileVersion] = {}

    def file(self, path: str) -> Fingerprint:
        """The fingerprint of an image in a file, an archive or a table.

        Args:
            path: see `promptot.data.images.image_bytes`.
        """
        holder, member = split_place(path)
        if member is None:
            version = _version(holder)
        else:
            if holder not in self._holders:
                self._holders[holder] = _version(holder)
            version = self._holders[holder]
        folder, name = os.path.split(holder)
        if folder not in self._folders:
            self._folders[folder] = os.path.realpath(folder)  # `Path` takes three times as long
        resolved = self._folders[folder]
        shown = member or f"{os.path.basename(folder or resolved)}/{name}"  # noqa: PTH119
        return Fingerprint(shown, version, f"{resolved}{os.sep}{name}")


def _version(file: str) -> FileVersion:
    try:
        return FileVersion.of(os.stat(file))  # noqa: PTH116
    except (OSError, ValueError):
        return MISSING


def _digest(*parts: str | int) -> str:
    text = "\n".join(map(str, parts)).encode("utf8", "surrogateescape")
    return hashlib.sha256(text).hexdigest()[:32]
