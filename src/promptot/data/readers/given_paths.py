"""Paths that a table or a description gives, perhaps as Windows writes them."""

from __future__ import annotations

from pathlib import Path


def place_of(folder: Path, text: str) -> str:
    """The place that a path means which is relative to a folder.

    Backslashes between its folders are taken for slashes, unless there is such a file as written:
    on most systems a name may hold a backslash.

    Example:
        >>> place_of(Path("data"), r"images\\1.png")
        'data/images/1.png'
    """
    place = folder / text
    if "\\" not in text or place.drive or _exists(place):
        return str(place)
    return str(folder / text.replace("\\", "/"))


def _exists(place: Path) -> bool:
    try:
        return place.exists()
    except (OSError, ValueError):  # no file can have this name
        return False
