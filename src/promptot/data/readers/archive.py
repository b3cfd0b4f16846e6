"""An archive as a tree of folders, to be read like one on the disk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from promptot.data.images.image_bytes import list_tar, list_zip
from promptot.errors import PromptotError

ARCHIVES = (".zip", ".tar")
DEEPEST = 255
"""Folders in each other; a path on the disk has hardly more."""
_TOP = PurePosixPath()


class ArchiveFolder:
    """A folder, or a file, inside an archive; it has what `load_tree` asks of a path.

    Its text is the place of its bytes, such as `photos.zip::cat/1.jpg`.
    """

    def __init__(self, archive: str, inside: PurePosixPath = _TOP) -> None:
        self.archive = archive
        self.inside = inside
        self.children: dict[str, ArchiveFolder] = {}
        self.is_file = False

    @property
    def name(self) -> str:
        return self.inside.name

    def is_dir(self) -> bool:
        return not self.is_file

    def iterdir(self) -> Iterator[ArchiveFolder]:
        return iter(self.children.values())

    def resolve(self) -> ArchiveFolder:
        return self  # there are no links in here

    def __str__(self) -> str:
        return f"{self.archive}::{self.inside}" if self.inside.parts else self.archive

    def add(self, member: str) -> None:
        """Put in a file by its name in the archive; folders on its way come to be.

        Raises:
            PromptotError: it lies in far too many folders.
        """
        parts = PurePosixPath(member).parts
        if len(parts) > DEEPEST:
            raise PromptotError(
                f"The archive '{self.archive}' holds a file {len(parts):,} folders deep, such as "
                f"'{member:.40}…'.",
                fix=f"Pack it again, with at most {DEEPEST} folders in each other.",
            )
        if not parts or ".." in parts or member.startswith("/"):
            return
        place = self
        for part in parts:
            if part not in place.children:
                place.children[part] = ArchiveFolder(self.archive, place.inside / part)
            place = place.children[part]
        place.is_file = True


def open_tree(path: Path) -> ArchiveFolder:
    """The tree of a zip or an uncompressed tar file.

    Raises:
        PromptotError: the file is damaged.
    """
    root, members = ArchiveFolder(str(path)), list_members(path)
    if path.suffix.lower() == ".zip" and not any("/" in member for member in members):
        members = [member.replace("\\", "/") for member in members]  # as some pack on Windows
    for member in members:
        root.add(member)
    return root


def list_members(path: Path) -> list[str]:
    """The names of the files in a zip or an uncompressed tar file.

    Raises:
        PromptotError: the file is damaged.
    """
    try:
        return list_tar(path) if path.suffix.lower() == ".tar" else list_zip(path)
    except Exception as error:  # a damaged archive raises almost anything
        raise PromptotError(
            f"The archive '{path}' can't be read: {error}.", fix="Copy or pack it again."
        ) from error
