"""Everything about a folder that must not change."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Any


def snapshot(*roots: Path) -> dict[str, tuple[Any, ...]]:
    """Kind, rights, inode, time of change and content of all that lies below some folders."""
    found: dict[str, tuple[Any, ...]] = {}
    for root in roots:
        for path in (root, *sorted(root.rglob("*"))):
            state = path.lstat()
            content: Any = None
            if stat.S_ISREG(state.st_mode):
                content = path.read_bytes()
            elif stat.S_ISLNK(state.st_mode):
                content = os.readlink(path)  # noqa: PTH115
            found[str(path)] = (state.st_mode, state.st_ino, state.st_mtime_ns, content)
    return found
