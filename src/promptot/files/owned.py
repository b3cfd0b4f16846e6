"""What promptot itself has put on the disk. Nothing else is ever moved or removed.

Three things are known for its own, and none by what it happens to be called:

- a temporary file or folder, by a name that nobody else makes up: half of it is random and the
  other half a hash of that half. So it is known from the moment it exists, however short its life;
- a working folder, by a file in it (`MARKER`) with a fixed text. It appears together with that;
- other results, by what is in them: see the modules that write them.

Links are never followed: a link is somebody else's.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Literal

from promptot.files.reading import Unreadable, open_regular

MARKER = ".promptot"
MARK = b"promptot made this folder for its work. 5d2e8f61b0c94a7fa3d7709c1e46b8d2\n"
_TEMPORARY = re.compile(r"\.partial-([0-9a-f]{16})([0-9a-f]{16})(\.\w+)?", re.ASCII)

Kind = Literal["nothing", "file", "folder", "link", "other"]


def kind_of(path: Path) -> Kind:
    """What lies there itself, whatever a link leads to.

    Raises:
        OSError: it can't be told.
    """
    try:
        mode = path.lstat().st_mode
    except (FileNotFoundError, NotADirectoryError):
        return "nothing"
    if stat.S_ISLNK(mode):
        return "link"
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def temporary_name(suffix: str = "") -> str:
    """A new name for a temporary file or folder.

    Example:
        >>> is_temporary(temporary_name(".csv")), is_temporary(".partial-mine.csv")
        (True, False)
    """
    key = secrets.token_hex(8)
    usual = re.fullmatch(r"\.\w+", suffix, re.ASCII) is not None
    return f".partial-{key}{_check(key)}{suffix if usual else ''}"


def is_temporary(name: str) -> bool:
    """Whether `temporary_name` made this name."""
    found = _TEMPORARY.fullmatch(name)
    return found is not None and found[2] == _check(found[1])


def _check(key: str) -> str:
    return hashlib.sha256(f"promptot {key}".encode()).hexdigest()[:16]


def is_marked(folder: Path) -> bool:
    """Whether it is a working folder."""
    return kind_of(folder) == "folder" and head_of(folder / MARKER, len(MARK) + 1) == MARK


def head_of(path: Path, size: int) -> bytes:
    """The first bytes of a regular file; none of anything else, or where it can't be read."""
    if kind_of(path) != "file":
        return b""
    try:
        with open_regular(path) as file:
            return file.read(size)
    except (OSError, Unreadable):
        return b""


def make_folder(path: Path) -> None:
    """Make a working folder, which is never there without its mark.

    Raises:
        OSError: as the system says.
    """
    made = path.with_name(temporary_name())
    made.mkdir(parents=True)
    mark(made)
    made.replace(path)


def mark(folder: Path) -> None:
    """Make a folder a working folder.

    Raises:
        OSError: as the system says.
    """
    written = folder / temporary_name()
    written.write_bytes(MARK)
    written.replace(folder / MARKER)


def unknown_in(
    folder: Path, known: Collection[str], more: Callable[[Path], bool] = lambda path: False
) -> list[str]:
    """Names in a folder that are neither known nor temporary, in order.

    Args:
        known: names of regular files.
        more: says what else is known.
    """
    return sorted(
        path.name
        for path in folder.iterdir()
        if not (kind_of(path) == "file" and (path.name in known or is_temporary(path.name)))
        and not more(path)
    )


def remove_folder(folder: Path) -> None:
    """Remove a folder that is known for promptot's own; nothing where there is none.

    It goes out of its place in one step, to a temporary name: whatever cuts this off, no half of
    it stays behind under its own name.

    Raises:
        OSError: as the system says.
    """
    if kind_of(folder) != "folder":
        return
    aside = folder.with_name(temporary_name())
    folder.replace(aside)
    shutil.rmtree(aside)


def sweep(folder: Path, removable: Callable[[Path], bool]) -> None:
    """Remove temporary files and folders that an interruption has left in a folder.

    Args:
        removable: whether a folder among them holds nothing but what may go.

    Raises:
        OSError: as the system says.
    """
    if kind_of(folder) == "nothing":
        return
    for path in list(folder.iterdir()):
        if not is_temporary(path.name):
            continue
        kind = kind_of(path)
        if kind == "file":
            path.unlink(missing_ok=True)
        elif kind == "folder" and removable(path):
            shutil.rmtree(path)


def replace_folder(staging: Path, target: Path) -> None:
    """Put a finished folder in the place of another, which goes only when this one has its place.

    The caller has made sure that what stands there may go. A link stays; what it leads to goes.

    Raises:
        OSError: as the system says; then what stood there stands there again.
    """
    target = Path(os.path.realpath(target))
    if kind_of(target) == "nothing":
        staging.replace(target)
        return
    old = target.with_name(temporary_name())
    target.replace(old)
    try:
        staging.replace(target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.replace(old, target)  # noqa: PTH105
        raise
    shutil.rmtree(old, ignore_errors=True)
