"""Tables about public data sets and about what a benchmark will cost."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from promptot.cli.grid import grid, numbers
from promptot.data.catalog.public import SetCheck
from promptot.experiments.forecast import Forecast
from promptot.reports.tables import format_value, printable
from promptot.training.estimate import GIB

_STYLES = {"ready": "green", "other counts": "yellow", "damaged": "red", "missing": "red"}


def check_table(checks: Sequence[SetCheck]) -> Table:
    """A line a data set: its state and its counts."""
    table = grid("", "State", *numbers("Classes", "Train", "Val", "Test"))
    for check in checks:
        task = None if check.found is None else check.found.task
        counts = [""] * 4
        if task is not None:
            sizes = (len(task.class_names), len(task.train), len(task.validation), len(task.test))
            counts = [f"{size:,}" for size in sizes]
        state = Text(check.state, style=_STYLES[check.state])
        table.add_row(Text(check.public_set.name), state, *counts)
    return table


def forecast_table(forecast: Forecast) -> Table:
    """What the missing cells will cost, a line a method."""
    table = grid("", *numbers("Cells", "Steps", "Training", "Testing"))
    for method in forecast.methods:
        table.add_row(
            Text(printable(method.label)),
            f"{method.cells:,}",
            f"{method.steps:,}",
            format_value(method.training_seconds, "seconds"),
            format_value(method.testing_seconds, "seconds"),
        )
    features = format_value(forecast.feature_seconds, "seconds")
    table.add_row(Text("frozen features of the test images", style="dim"), "", "", "", features)
    return table


def show_forecast(console: Console, forecast: Forecast) -> None:
    """Print what the missing cells will cost, and the sums in a sentence."""
    if not forecast.methods:
        console.print("Nothing is missing.")
        return
    share = ""
    if forecast.jobs > 1:
        least = format_value(forecast.seconds / forecast.jobs, "seconds")
        share = f" ({least} at best with {forecast.jobs} jobs)"
    console.print(forecast_table(forecast))
    console.print(
        f"About {format_value(forecast.seconds, 'seconds')} of work{share}, "
        f"{forecast.memory_bytes / GIB:.1f} GiB of memory a process, "
        f"{forecast.disk_bytes / GIB:.1f} GiB of disk for what is kept of images.",
        soft_wrap=True,
    )


def forecast_json(forecast: Forecast) -> dict[str, Any]:
    """The same as plain values."""
    return {**dataclasses.asdict(forecast), "seconds": forecast.seconds}
