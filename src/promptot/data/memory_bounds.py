"""What a list of images may cost in memory, said before it is read."""

from __future__ import annotations

from promptot.errors import PromptotError

ROW_BYTES = 600
"""Memory that a row of a table takes as an image of a task, its path of usual length included."""
ROWS_PER_BYTE = 8
"""More rows in a byte of a file than that are no images: each has a path, or bytes, of its own."""
FEW_ROWS = 100_000
GIB = 2**30


def check_rows(path: object, rows: int, size: int, more: int = 0) -> None:
    """Refuse a table whose list of images would not fit into memory.

    Args:
        path: of the table, for the message.
        rows: that it says it has.
        size: of its file, in bytes.
        more: bytes that reading it takes beside the list.

    Raises:
        PromptotError: it says it has more rows than its size allows, or than memory holds.
    """
    if rows > max(FEW_ROWS, ROWS_PER_BYTE * size):
        raise PromptotError(
            f"'{path}' says that it has {rows:,} rows, in {size:,} bytes.",
            fix="A table of images has a path or an image in each row; write it again.",
        )
    needed, free = rows * ROW_BYTES + more, free_bytes()
    if needed > free:
        raise PromptotError(
            f"'{path}' has {rows:,} rows; to list them takes about {needed / GIB:.1f} GiB of "
            f"memory, and {free / GIB:.1f} GiB are free.",
            fix="Divide it into smaller tables, or use a machine with more memory.",
        )


def free_bytes() -> int:
    """Free memory of the machine; no limit is assumed where the system does not tell."""
    try:
        with open("/proc/meminfo", encoding="ascii") as file:  # noqa: PTH123
            for line in file:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 2**62
