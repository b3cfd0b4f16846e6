"""Folders that systems, network drives and archivers put among people's images."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

# fmt: off
JUNK_FOLDERS = frozenset({
    # network drives: thumbnails, deleted files, snapshots
    "@eadir", "#recycle", "#snapshot", "@recycle", "@recycle.bin", "@recently-snapshot",
    "@snapshot", "@__thumb", "@transcode", "@tmp", "@sharebin", "@sharesnap",
    "network trash folder", "temporary items", "network recycle bin",
    # systems: deleted files, what a check of the disk has found, indices
    "$recycle.bin", "$extend", "recycler", "recycled", "system volume information", "lost+found",
    "found.000",
    # archivers, programs
    "__macosx", "__pycache__", "_vti_cnf", "_gsdata_",
})
# fmt: on
"""Their names, in lower case. Those that begin with a dot are hidden and passed over anyway."""


def is_junk(name: str) -> bool:
    """Whether a folder of this name is one of `JUNK_FOLDERS`, in any case.

    Example:
        >>> is_junk("@eaDir"), is_junk("$RECYCLE.BIN"), is_junk("recycle bins")
        (True, True, False)
    """
    return name.casefold() in JUNK_FOLDERS


def is_out_of_the_way(member: str) -> bool:
    """Whether a file, by its path, is hidden or lies in a folder that is hidden or junk.

    Example:
        >>> is_out_of_the_way("__MACOSX/a.tar"), is_out_of_the_way("a/._b.tar")
        (True, True)
        >>> is_out_of_the_way("a/b.tar")
        False
    """
    parts = PurePosixPath(member).parts
    hidden = any(part.startswith(".") and part not in (".", "..") for part in parts)
    return hidden or any(map(is_junk, parts[:-1]))


def visible_files(folder: Path, pattern: str) -> list[Path]:
    """What matches in a folder, sorted, without what is hidden or junk."""
    return sorted(
        path
        for path in folder.glob(pattern)
        if not is_out_of_the_way(path.relative_to(folder).as_posix())
    )


def left_out(names: Iterable[str]) -> list[str]:
    """A sentence on the junk folders of these names that were left out; none without any.

    Example:
        >>> left_out(["@eaDir", "@eaDir"])
        ["Left out, as network drives and systems make them: 2 folders '@eaDir'."]
    """
    counts = Counter(names).most_common()
    if not counts:
        return []
    shown = [f"{n} {'folder' if n == 1 else 'folders'} '{name}'" for name, n in counts]
    return [f"Left out, as network drives and systems make them: {', '.join(shown)}."]
