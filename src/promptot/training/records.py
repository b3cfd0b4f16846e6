"""What is logged while training: a row a step and a row an epoch, as CSV."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from promptot.files import write_text


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


@dataclass(frozen=True)
class EpochRecord:
    """Means over an epoch's steps, and how long it took."""

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


AVERAGED = tuple(field.name for field in fields(StepRecord) if field.name not in {"epoch", "step"})


def summarise(steps: Sequence[StepRecord], seconds: float) -> EpochRecord:
    """The mean of an epoch's steps."""
    means = {name: math.fsum(getattr(s, name) for s in steps) / len(steps) for name in AVERAGED}
    return EpochRecord(epoch=steps[0].epoch, steps=len(steps), seconds=seconds, **means)


class Log:
    """All records of a run, written to `steps.csv` and `epochs.csv` when an epoch ends.

    Args:
        folder: where the files go; None keeps the records in memory only.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder
        self.steps: list[StepRecord] = []
        self.epochs: list[EpochRecord] = []

    def add_epoch(self, steps: Sequence[StepRecord], seconds: float) -> EpochRecord:
        """Keep an epoch's steps and their summary, and write both files."""
        record = summarise(steps, seconds)
        self.steps.extend(steps)
        self.epochs.append(record)
        if self.folder is not None:
            write_text(self.folder / "steps.csv", _to_csv(self.steps))
            write_text(self.folder / "epochs.csv", _to_csv(self.epochs))
        return record

    def mean(self, name: str) -> float | None:
        """The mean of a value over all steps that have it; None where none has."""
        values = [value for value in (getattr(s, name) for s in self.steps) if value == value]
        return math.fsum(values) / len(values) if values else None

    def restore(self, epochs: int) -> None:
        """Read back the first `epochs` epochs of an interrupted run."""
        if self.folder is None:
            return
        steps = _read_csv(self.folder / "steps.csv", StepRecord)
        self.steps = [row for row in steps if row.epoch <= epochs]
        rows = _read_csv(self.folder / "epochs.csv", EpochRecord)
        self.epochs = [row for row in rows if row.epoch <= epochs]


def _to_csv(rows: Sequence[StepRecord] | Sequence[EpochRecord]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(asdict(rows[0])), lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {k: "" if isinstance(v, float) and math.isnan(v) else v for k, v in asdict(row).items()}
        for row in rows
    )
    return text.getvalue()


Record = TypeVar("Record", StepRecord, EpochRecord)


def _read_csv(path: Path, kind: type[Record]) -> list[Record]:
    if not path.is_file():
        return []
    integers = {"epoch", "step", "steps"}
    with path.open(encoding="utf-8", newline="") as file:
        rows: list[dict[str, Any]] = [
            {
                key: int(value) if key in integers else float(value or "nan")
                for key, value in row.items()
            }
            for row in csv.DictReader(file)
        ]
    return [kind(**row) for row in rows]
