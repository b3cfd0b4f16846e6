"""What the commands print, and where: tables and progress for people, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from promptot.errors import PromptotError
    from promptot.run import Callbacks
    from promptot.tasks.dataset import Skipped

errors = Console(stderr=True)


def console_for(json_path: Path | None) -> Console:
    """Standard output, unless the JSON goes there: then standard error."""
    return errors if json_path is not None and str(json_path) == "-" else Console()


def write_result(result: Any, path: Path | None) -> None:
    """Write a command's result as JSON to a file, or to standard output for "-"."""
    if path is None:
        return
    if str(path) == "-":
        sys.stdout.write(json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    else:
        from promptot.files import write_json

        write_json(path, result)


def show_error(error: PromptotError) -> None:
    """What is wrong in red, what to do about it below."""
    errors.print(f"[bold red]Error:[/] {escape(error.problem)}", highlight=False, soft_wrap=True)
    if error.fix:
        errors.print(escape(error.fix), highlight=False, soft_wrap=True)


def show_skipped(console: Console, skipped: tuple[Skipped, ...], most: int = 10) -> None:
    """Name the images that were left out."""
    if not skipped:
        return
    images = "1 image" if len(skipped) == 1 else f"{len(skipped)} images"
    console.print(f"[yellow]Left out {images}:[/]")
    for item in skipped[:most]:
        console.print(f"  {escape(repr(item.path))}: {escape(item.reason)}", highlight=False)
    if len(skipped) > most:
        console.print(f"  and {len(skipped) - most} more (all in manifest.json)")


@contextmanager
def progress_bar(console: Console) -> Iterator[Progress]:
    """A progress display that goes away when the work is done."""
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bar:
        yield bar


class Stages:
    """One bar after another, named as the work goes on."""

    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._tasks: dict[str, Any] = {}

    def __call__(self, what: str, done: int, total: int) -> None:
        if what not in self._tasks:
            self._tasks[what] = self._bar.add_task(what, total=total, note="")
        self._bar.update(self._tasks[what], completed=done, total=total)


def training_callbacks(bar: Progress) -> Callbacks:
    """Callbacks that show epochs and the loss."""
    from promptot.run import Callbacks
    from promptot.training.records import EpochRecord, StepRecord

    task = bar.add_task("preparing", total=None, note="")

    def start(done: int, total: int) -> None:
        bar.update(task, description="epoch", completed=done, total=total)

    def step(record: StepRecord) -> None:
        bar.update(task, note=f"step {record.step}, loss {record.total:.3f}")

    def epoch(record: EpochRecord) -> None:
        bar.update(task, completed=record.epoch)

    return Callbacks(on_start=start, on_step=step, on_epoch=epoch)
