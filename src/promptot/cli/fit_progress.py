"""What `fit` says while it works."""

from __future__ import annotations

from collections import Counter
from functools import partial
from pathlib import Path

from rich.progress import Progress

from promptot.cli.console import errors, plain, show_notes
from promptot.cli.suite_tables import show_forecast
from promptot.data.task import ImageTask
from promptot.experiments.cell_progress import BenchmarkListener
from promptot.experiments.cell_record import CellRecord
from promptot.reports.tables import format_value
from promptot.training.estimate import GIB, Estimate
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord, StepRecord

LINES = 10
"""Lines about training in a log file, where there is no bar."""


class FitProgress(Listener):
    """Says what was found and what it will cost, then shows epochs and the loss.

    Args:
        bar: where.
        what: the method and the model.
        out: the run folder.
    """

    def __init__(self, bar: Progress, what: str, out: Path) -> None:
        self.bar, self.what, self.out = bar, what, out
        self._line = bar.add_task("preparing", total=None, note="")
        self._epochs = 0
        self._cost: Estimate | None = None

    def on_task(self, task: ImageTask) -> None:
        errors.print(f"[bold]{plain(task.name)}[/]: {_describe(task)}")
        show_notes(errors, task.notes)
        errors.print(f"{plain(self.what)} → {plain(self.out)}", soft_wrap=True)

    def on_warning(self, text: str) -> None:
        errors.print(f"[yellow]![/] {plain(text)}", soft_wrap=True)

    def on_views(self, views: int, images: int, size: int) -> None:
        errors.print(
            f"{views} fixed views of {_images(images)}: {size / 2**20:.1f} MiB are kept in memory."
        )

    def on_decoding(self, images: int, bound: int, device: str) -> None:
        errors.print(
            f"{_images(images)} are decoded once and kept on {device}, in up to "
            f"{bound / GIB:.1f} GiB; what does not fit is decoded whenever it is needed."
        )

    def on_estimate(self, estimate: Estimate) -> None:
        self._cost = estimate

    def on_start(self, done: int, total: int) -> None:
        self._epochs = total
        cost = self._cost
        if cost is not None and cost.step_seconds > 0:
            errors.print(
                f"{total - done} epochs of about {format_value(cost.epoch_seconds, 'seconds')}: "
                f"{format_value((total - done) * cost.epoch_seconds, 'seconds')}, and "
                f"{cost.memory_bytes / GIB:.1f} GiB of memory."
            )
        if done:
            errors.print(f"Going on after epoch {done} of {total}.")
        self.bar.update(self._line, description="epoch", completed=done, total=total)

    def on_step(self, record: StepRecord) -> None:
        self.bar.update(self._line, note=f"step {record.step}, loss {record.total:.3f}")

    def on_epoch(self, record: EpochRecord) -> None:
        epoch, total = record.epoch, self._epochs
        self.bar.update(self._line, completed=epoch)
        if self.bar.disable and (epoch % max(1, total // LINES) == 0 or epoch == total):
            errors.print(f"epoch {epoch} of {total}: loss {record.total:.3f}")


def benchmark_listener(bar: Progress, forecast: bool = False) -> BenchmarkListener:
    """Show the cells that are done and the one at work; in a log file, a line a cell.

    Args:
        bar: where.
        forecast: whether to say first what all cells will cost.
    """
    cells = bar.add_task("cells", total=None, note="")
    within = bar.add_task("", total=None, note="", visible=False)

    def progress(what: str, done: int, total: int) -> None:
        bar.update(within, description=plain(what), completed=done, total=total, visible=True)

    def on_cell(record: CellRecord, done: int, total: int) -> None:
        bar.update(cells, completed=done, total=total)
        bar.update(within, visible=False)
        name = f"{record.task}, K = {record.shots}, seed {record.seed}, {record.method}"
        if record.parts is None:
            errors.print(f"{plain(name)}: {plain(record.problem)}", soft_wrap=True)
        elif bar.disable:
            shares = ", ".join(
                f"{part} {100 * answered.accuracy:.1f}" for part, answered in record.parts.items()
            )
            seconds = format_value(record.seconds, "seconds")
            errors.print(plain(f"[{done}/{total}] {name}: {shares} ({seconds})"), soft_wrap=True)

    on_forecast = partial(show_forecast, errors) if forecast else None
    return BenchmarkListener(on_progress=progress, on_cell=on_cell, on_forecast=on_forecast)


def _describe(task: ImageTask) -> str:
    shots = Counter(example.label for example in task.train).values()
    fewest, most = min(shots), max(shots)
    each = f"{most} of each class" if fewest == most else f"{fewest} to {most} of each class"
    classes = "1 class" if len(task.class_names) == 1 else f"{len(task.class_names)} classes"
    return (
        f"{classes}, {_images(len(task.train))} to learn from ({each}), "
        f"{_images(len(task.test))} to test on"
    )


def _images(count: int) -> str:
    return "1 image" if count == 1 else f"{count} images"
