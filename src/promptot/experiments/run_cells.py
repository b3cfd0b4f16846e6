"""Running the cells of a benchmark that have no result yet, wherever an executor puts them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from promptot.experiments.cell_progress import BenchmarkListener
from promptot.experiments.cell_record import CellRecord
from promptot.experiments.cells import Cell
from promptot.experiments.executor import Executor
from promptot.experiments.run_cell import CellContext, run_cell
from promptot.experiments.scenarios import Unit
from promptot.experiments.store import Store


class Finished(NamedTuple):
    """A cell that has a record by now; None: another process made it."""

    key: str
    record: CellRecord | None


class CellWork:
    """What an executor does with a group of cells, in this process or in another one.

    Args:
        store: of the results.
        open_context: makes the context in a process that has none, before its first group.
        context: of this process; another one makes its own.
    """

    def __init__(
        self,
        store: Store,
        open_context: Callable[[], CellContext],
        context: CellContext | None = None,
    ) -> None:
        self.store = store
        self.open_context = open_context
        self.context = context
        self._done: set[str] = set()  # since this work began, by whatever process

    def __call__(self, cells: Sequence[Cell]) -> Iterator[Finished]:
        """Run those that nobody else runs or has finished, and store a record of each.

        Raises:
            PromptotError: a record can't be written, or a task's images can't be read.
        """
        if self.context is None:
            self.context = self.open_context()
        for cell in cells:
            record = None
            with self.store.claim(cell.key) as mine:
                self._done |= self.store.read_new().keys()
                if mine and cell.key not in self._done:
                    record = run_cell(cell, self.context)
                    self.store.append(record)
                    self._done.add(cell.key)
            if cell.key in self._done:
                yield Finished(cell.key, record)

    def __getstate__(self) -> dict[str, object]:
        return {**vars(self), "context": None}


def run_missing(
    cells: Sequence[Cell], work: CellWork, executor: Executor, listener: BenchmarkListener
) -> None:
    """Run the cells that have no result yet, and tell of each.

    A cell that fails gets a record with its problem; it runs again the next time. Cells that
    another process runs are left to it.

    Args:
        cells: ordered by scenario and seed.
        work: what is done with them.
        executor: does it.
        listener: who is told.

    Raises:
        PromptotError: the records can't be written, a task's images can't be read, or a process
            ended before its time; what is finished is kept.
    """
    wanted = {cell.key for cell in cells}
    done = {key for key, record in work.store.read_new().items() if record.is_result} & wanted
    groups = group_cells([cell for cell in cells if cell.key not in done], executor.jobs)
    if not groups:
        return
    with contextlib.closing(executor.map(work, groups)) as finished:
        for key, record in finished:
            done.add(key)
            if record is not None:
                listener.on_cell(record, len(done), len(wanted))


def group_cells(cells: Sequence[Cell], jobs: int) -> list[list[Cell]]:
    """Cells that share views, those of one scenario and seed, one task of an executor each.

    For several jobs groups are divided where there are too few of them, and those that begin
    together are far apart, as neighbours would wait for the same images.
    """
    groups: dict[tuple[Unit, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.unit, cell.seed), []).append(cell)
    pieces = 1 if jobs == 1 else -(-2 * jobs // max(1, len(groups)))
    tasks = [part for group in groups.values() for i in range(pieces) if (part := group[i::pieces])]
    apart = max(1, -(-len(tasks) // jobs))
    return [tasks[i] for i in sorted(range(len(tasks)), key=lambda i: (i % apart, i))]
