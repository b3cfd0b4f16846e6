"""What an image is known by, wherever it lies, so that results of it can be found again.

No file is read for a fingerprint, so that hundreds of thousands cost seconds: a file, or the
archive or table that holds the image, is known by its size and times. Only an image in memory is
known by its content, by the hash that is published of every image that was trained on.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass

from promptot.data.images.image_bytes import UnreadableImage, split_place
from promptot.data.images.in_memory_image import InMemoryImage
from promptot.data.images.read_image import image_hash
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
        return _digest(self.name, self.content, *(self.version or ())[:2])

    @property
    def published(self) -> str:
        """32 hex digits of name and size: of files that others fetch anew, times say nothing."""
        return _digest(self.name, self.content, *(self.version or ())[:1])


class ImageIdentities:
    """Fingerprints and hashes of images; folders, archives and contents are looked at once.

    It is for one pass over many images: nobody would notice a file that changes meanwhile. An image
    is told by its path and, in memory, by what holds it: two there may share a name.
    """

    def __init__(self) -> None:
        self._folders: dict[str, str] = {}
        self._holders: dict[str, FileVersion] = {}
        self._hashes: dict[tuple[str, InMemoryImage | None], str] = {}

    def fingerprint(self, path: str, held: InMemoryImage | None = None) -> Fingerprint:
        """The fingerprint of an image.

        Args:
            path: see `promptot.data.images.image_bytes`.
            held: the image, if it lies in no file.
        """
        if held is None:
            return self._of_file(path)
        try:
            return Fingerprint(content=self.hash(path, held))
        except UnreadableImage as error:
            return Fingerprint(content=f"unreadable: {error.reason}")

    def hash(self, path: str, held: InMemoryImage | None = None) -> str:
        """SHA-256 of an image's content, see `image_hash`.

        Raises:
            UnreadableImage: with the reason.
        """
        known = self._hashes.get((path, held))
        if known is None:
            known = image_hash(path if held is None else held.fetch(path), path)
            self._hashes[path, held] = known
        return known

    def _of_file(self, path: str) -> Fingerprint:
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
