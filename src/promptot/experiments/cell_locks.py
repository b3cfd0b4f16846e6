"""Which process works on which cell, so that several may share a benchmark."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from promptot.files.locks import LockFile
from promptot.files.writing import explain


class Claims:
    """One lock file a cell, held while the cell runs.

    The system frees a lock when the process that holds it ends, however it ends: a killed process
    leaves no cell behind that nobody may run.

    Args:
        folder: where the lock files go; it may be removed when nothing runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """Whether the cell is this process's, until the block ends; never waits.

        The file goes with the claim. Who claims a cell must look afterwards whether it has a
        result by now: another process may have finished it in between.

        Raises:
            PromptotError: the folder can't be written to.
        """
        lock = LockFile(self.folder / f"{key[:32]}.lock")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mine = lock.acquire()
        except OSError as error:
            raise explain(error, self.folder, fix="Choose another --out.") from error
        try:
            yield mine
        finally:
            lock.release()
