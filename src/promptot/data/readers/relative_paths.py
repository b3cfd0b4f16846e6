"""Paths that a table or a description gives, perhaps as Windows writes them."""

from __future__ import annotations

import os
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
    if "\\" not in text or place.drive or os.path.exists(place):  # noqa: PTH110 - of any name
        return str(place)
    return str(folder / text.replace("\\", "/"))
