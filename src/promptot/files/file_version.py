"""What tells a file from the one that had its place before, without reading it."""

from __future__ import annotations

import os
from typing import NamedTuple


class FileVersion(NamedTuple):
    """Size and times of a file, as the system keeps them.

    Attributes:
        size: in bytes.
        modified: time of the last change of its content, ns. Copies mostly keep it.
        changed: time of the last change of anything about it, ns: a file that is written, moved
            here or given another time gets a new one, which no program can choose. (Windows keeps
            the time of creation instead.)
    """

    size: int
    modified: int
    changed: int

    @classmethod
    def of(cls, state: os.stat_result) -> FileVersion:
        """That of a file by its `stat`."""
        return cls(state.st_size, state.st_mtime_ns, state.st_ctime_ns)


def times_of(state: os.stat_result) -> int:
    """Both times of a `FileVersion` as one number, to know a file again within a process."""
    return state.st_mtime_ns << 64 | state.st_ctime_ns
