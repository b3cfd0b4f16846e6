"""Who is told how a benchmark, a tuning or the demo goes."""

from __future__ import annotations

from collections.abc import Callable

from promptot.data.task import Progress
from promptot.experiments.cell_record import CellRecord
from promptot.experiments.forecast import Forecast
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord


class BenchmarkListener(Listener):
    """Hears how a benchmark goes: `on_progress` within a cell, and what follows."""

    def on_forecast(self, forecast: Forecast) -> None:
        """Before the first cell: what all of them will cost. It takes some timed steps."""

    def on_cell(self, record: CellRecord, done: int, total: int) -> None:
        """After each cell: its record, how many are done, and how many there are."""


def counter(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    """What is called with how many more are done."""
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count


def epoch_progress(progress: Progress, what: str, epochs: int) -> Listener:
    """Tell of each epoch of a training.

    Args:
        progress: is told.
        what: is trained.
        epochs: how many there are.
    """

    def epoch(record: EpochRecord) -> None:
        progress(what, record.epoch, epochs)

    return Listener(on_epoch=epoch)
