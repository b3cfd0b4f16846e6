"""Where a benchmark keeps its results, and which process works on which cell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from promptot.experiments.cell_record import CellRecord
from promptot.experiments.record_file import RecordFile
from promptot.files.locks import LockFile
from promptot.files.writing import explain


class Store(Protocol):
    """Results by the keys of cells, for several processes. It can be sent to another process."""

    def read(self) -> Mapping[str, CellRecord]:
        """All records by their key, the last one where there are several."""

    def read_new(self) -> Mapping[str, CellRecord]:
        """Those that were added since the last call, by whatever process."""

    def append(self, record: CellRecord) -> None:
        """Add a record; it is there for everybody when the call returns."""

    def claim(self, key: str) -> AbstractContextManager[bool]:
        """Whether the cell is this process's, until the block ends; never waits.

        Who claims a cell must look afterwards whether it has a result by now: another process may
        have finished it in between.
        """


class FolderStore(RecordFile[CellRecord]):
    """A file of results, and one lock file a cell, held while the cell runs.

    The system frees a lock when the process that holds it ends, however it ends: a killed process
    leaves no cell behind that nobody may run.

    Args:
        file: of the results.
        claims: folder of the locks; it may be removed when nothing runs.
    """

    def __init__(self, file: Path, claims: Path) -> None:
        super().__init__(file, CellRecord)
        self.claims = claims

    @contextlib.contextmanager
    def claim(self, key: str) -> Iterator[bool]:
        """See `Store`; the lock file goes with the claim.

        Raises:
            PromptotError: the folder can't be written to.
        """
        lock = LockFile(self.claims / f"{key[:32]}.lock")
        try:
            self.claims.mkdir(parents=True, exist_ok=True)
            mine = lock.acquire()
        except OSError as error:
            raise explain(error, self.claims, fix="Choose another --out.") from error
        try:
            yield mine
        finally:
            lock.release()
