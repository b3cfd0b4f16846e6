"""What is logged while training: a row a step and a row an epoch, as CSV."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from promptot.errors import PromptotError
from promptot.files.reading import MIB, Unreadable, decode, read_bytes, read_csv
from promptot.files.writing import write_bytes, write_text

STEPS, EPOCHS = "steps.csv", "epochs.csv"
LARGEST_FILE = 256 * MIB
MOST_STEPS = 10_000
"""Rows that `steps.csv` holds at most; a longer run keeps every second step, every fourth, …"""


@dataclass(frozen=True)
class StepRecord:
    """One optimiser step; a value that does not exist (no plan, say) is NaN."""

    epoch: int
    step: int
    lr: float
    total: float
    cross_entropy: float
    preservation: float
    off_diagonal_mass: float
    plan_entropy: float
    image_drift: float
    text_drift: float
    accuracy: float  # of the student on the batch, 0..1
    strength: float = math.nan  # λ
    vocabulary: float = math.nan  # the second term, and how far its plan is from the identity
    vocabulary_off_diagonal_mass: float = math.nan
    vocabulary_plan_entropy: float = math.nan


AVERAGED = tuple(field.name for field in fields(StepRecord))[2:]
MEASURED = AVERAGED[1:]
"""What is measured in a step, in this order: all but where it is, and its learning rate."""


@dataclass(frozen=True)
class EpochRecord:
    """Means over an epoch's steps, how long it took, and the plan that was furthest off."""

    epoch: int
    steps: int
    lr: float
    total: float
    cross_entropy: float
    preservation: float
    off_diagonal_mass: float
    plan_entropy: float
    image_drift: float
    text_drift: float
    accuracy: float
    seconds: float
    strength: float = math.nan
    vocabulary: float = math.nan
    vocabulary_off_diagonal_mass: float = math.nan
    vocabulary_plan_entropy: float = math.nan
    largest_off_diagonal_mass: float = math.nan  # of its steps, where the others are means
    skipped: int = 0  # batches left out because their loss or gradient was not finite


def summarise(steps: Sequence[StepRecord], seconds: float, skipped: int = 0) -> EpochRecord:
    """The mean of an epoch's steps."""
    means = {name: math.fsum(getattr(s, name) for s in steps) / len(steps) for name in AVERAGED}
    return EpochRecord(
        epoch=steps[0].epoch,
        steps=len(steps),
        seconds=seconds,
        skipped=skipped,
        largest_off_diagonal_mass=_largest(s.off_diagonal_mass for s in steps),
        **means,
    )


def _largest(values: Iterable[float]) -> float:
    """The largest of those that are no NaN; NaN where all are."""
    return max((value for value in values if not math.isnan(value)), default=math.nan)


Record = TypeVar("Record", StepRecord, EpochRecord)


@dataclass(frozen=True, eq=False)
class SavedLog:
    """A log as a folder has it: looked into when it is asked for, and written again as it is.

    Attributes:
        folder: for messages.
        files: by name; one that there is not is left out.
    """

    folder: Path
    files: Mapping[str, bytes] = field(repr=False)

    @classmethod
    def read(cls, folder: Path) -> SavedLog:
        """Both files of a folder, as far as they are there.

        Raises:
            PromptotError: one can't be read.
        """
        files = {}
        for path in (folder / EPOCHS, folder / STEPS):
            if path.is_file():
                try:
                    files[path.name] = read_bytes(path, LARGEST_FILE)
                except Unreadable as error:
                    raise _damaged(path) from error
        return cls(folder, files)

    def write(self, folder: Path) -> None:
        """Write the files into a folder."""
        for name, content in self.files.items():
            write_bytes(folder / name, content)

    @cached_property
    def log(self) -> Log:
        """The records.

        Raises:
            PromptotError: the files are damaged.
        """
        log = Log()
        log.take(self)
        return log

    def rows(self, name: str, kind: type[Record]) -> list[Record]:
        """The rows of a file; none if it is missing, or ends before its first row.

        Raises:
            PromptotError: it is damaged.
        """
        integers = {"epoch", "step", "steps", "skipped"}
        try:
            text = decode(self.files.get(name, b""))
            if text.partition("\n")[0].strip() == "" and text:
                raise Unreadable("there is no header")
            cells = read_csv(text)
            header = next(cells, [])
            if len(set(header)) < len(header):
                raise Unreadable("a column comes twice")
            rows: list[dict[str, Any]] = [
                {
                    key: int(value) if key in integers else float(value or "nan")
                    for key, value in zip(header, row, strict=True)
                }
                for row in cells
            ]
            return [kind(**row) for row in rows]
        except (ValueError, TypeError) as error:
            raise _damaged(self.folder / name) from error


class Log:
    """The records of a run, written to `steps.csv` and `epochs.csv` when an epoch ends.

    Epochs are all kept. Of the steps those are whose number in the run, counted from 0, is a
    multiple of a power of two: of the smallest one that leaves no more than `MOST_STEPS`.

    Args:
        folder: where the files go; None keeps the records in memory only.
        most_steps: instead of `MOST_STEPS`.
    """

    def __init__(self, folder: Path | None = None, most_steps: int = MOST_STEPS) -> None:
        self.folder, self.most_steps = folder, most_steps
        self.steps: list[StepRecord] = []
        self.epochs: list[EpochRecord] = []
        self._lines: list[str] = []  # `steps` as CSV, so that each is formatted once

    def add_epoch(
        self, steps: Sequence[StepRecord], seconds: float, skipped: int = 0
    ) -> EpochRecord:
        """Keep an epoch's steps and their summary, and write both files.

        Args:
            skipped: batches that were left out of `steps`.
        """
        record = summarise(steps, seconds, skipped)
        self.epochs.append(record)
        self._keep(steps)
        if self.folder is not None:
            self.write(self.folder)
        return record

    def write(self, folder: Path) -> None:
        """Write both files into a folder; none where no epoch was trained."""
        if self.epochs:
            write_text(folder / STEPS, "".join([_header(StepRecord), *self._lines]))
            text = "".join([_header(EpochRecord), *map(_line, self.epochs)])
            write_text(folder / EPOCHS, text)

    @property
    def step_count(self) -> int:
        """Steps so far, those left out of `steps` included."""
        return sum(epoch.steps for epoch in self.epochs)

    @property
    def skipped(self) -> int:
        """Batches that were left out because something was not finite."""
        return sum(epoch.skipped for epoch in self.epochs)

    def mean(self, name: str) -> float | None:
        """The mean of a value over all steps that have it; None where none has."""
        if len(self.steps) == self.step_count:
            values = [value for value in (getattr(s, name) for s in self.steps) if value == value]
            return math.fsum(values) / len(values) if values else None
        pairs = [(getattr(epoch, name), epoch.steps) for epoch in self.epochs]
        present = [(value, steps) for value, steps in pairs if value == value]
        total = math.fsum(value * steps for value, steps in present)
        return total / sum(steps for _, steps in present) if present else None

    @property
    def largest_off_diagonal_mass(self) -> float | None:
        """Over all steps, those left out of `steps` included; None where there was no plan.

        Epochs of a log that older versions began have it of the steps that were kept.
        """
        epochs = (epoch.largest_off_diagonal_mass for epoch in self.epochs)
        found = _largest((*epochs, *(step.off_diagonal_mass for step in self.steps)))
        return None if math.isnan(found) else found

    def restore(self, epochs: int | None = None) -> None:
        """Read back the first `epochs` epochs of an interrupted run; all that are there if None.

        Raises:
            PromptotError: the files are damaged, or don't reach that far.
        """
        if self.folder is not None:
            self.take(SavedLog.read(self.folder), epochs)

    def take(self, saved: SavedLog, epochs: int | None = None) -> None:
        """`restore`, of files that were read."""
        rows = saved.rows(EPOCHS, EpochRecord)
        epochs = len(rows) if epochs is None else epochs
        self.epochs = [row for row in rows if row.epoch <= epochs]
        if [row.epoch for row in self.epochs] != list(range(1, epochs + 1)):
            raise _damaged(saved.folder / EPOCHS)
        self.steps, self._lines = [], []
        self._keep(s for s in saved.rows(STEPS, StepRecord) if s.epoch <= epochs)

    def _keep(self, steps: Iterable[StepRecord]) -> None:
        """Take up steps of epochs that are in `epochs`, and drop what is too much by now."""
        for step in steps:
            self.steps.append(step)
            self._lines.append(_line(step))
        if not self.epochs:
            return
        batches = self.epochs[0].steps + self.epochs[0].skipped  # an epoch
        stride = 1
        while -(-batches * len(self.epochs) // stride) > self.most_steps:
            stride *= 2
        if stride > 1:
            numbers = ((s.epoch - 1) * batches + s.step - 1 for s in self.steps)
            kept = [place for place, number in enumerate(numbers) if number % stride == 0]
            self.steps = [self.steps[place] for place in kept]
            self._lines = [self._lines[place] for place in kept]


def _header(kind: type[StepRecord] | type[EpochRecord]) -> str:
    return ",".join(field.name for field in fields(kind)) + "\n"


def _line(row: StepRecord | EpochRecord) -> str:
    values = ("" if isinstance(v, float) and math.isnan(v) else str(v) for v in astuple(row))
    return ",".join(values) + "\n"


def _damaged(path: Path) -> PromptotError:
    return PromptotError(
        f"The log '{path}' is damaged, so the interrupted run can't go on.",
        fix="Start again with --overwrite.",
    )
