"""Trackers as a listener of training, and the rule that none of them can end a run."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Protocol

from promptot.errors import PromptotError, nearest
from promptot.reports.tables import printable
from promptot.runs.tracking.loggers import MLflow, TensorBoard, WeightsAndBiases
from promptot.training.listener import Listener
from promptot.training.training_log import EpochRecord, StepRecord

logger = logging.getLogger(__name__)

Values = dict[str, float]
NOT_MEASURED = {"epoch", "step", "steps"}


class Tracker(Protocol):
    """A place outside the run folder that is told how training goes."""

    def start(self, settings: Mapping[str, Any]) -> None:
        """Begin: what the run is made with, flat."""
        ...

    def log(self, steps: Sequence[tuple[int, Values]], epoch: int, means: Values) -> None:
        """An epoch is over: the values of each step, by its number from the run's start, and the
        means."""
        ...

    def finish(self, results: Values, failed: bool) -> None:
        """The run is over: its accuracies; none if it failed."""
        ...


TRACKERS: dict[str, Callable[[Path], Tracker]] = {
    "tensorboard": TensorBoard,
    "wandb": WeightsAndBiases,
    "mlflow": MLflow,
}


def open_trackers(names: Sequence[str], folder: Path) -> dict[str, Tracker]:
    """Trackers of a run, by name.

    Args:
        names: of `TRACKERS`.
        folder: the run folder.

    Raises:
        PromptotError: a name is unknown, or its library is not installed.
    """
    for name in names:
        if name not in TRACKERS:
            raise PromptotError(f"Unknown tracker '{name}'.", fix=nearest(name, TRACKERS))
    return {name: TRACKERS[name](folder) for name in names}


class Tracking(Listener):
    """Tells trackers how a run goes; the first time that one fails, it is named and left out.

    Args:
        trackers: by name.
    """

    def __init__(self, trackers: Mapping[str, Tracker]) -> None:
        self._trackers = dict(trackers)
        self._steps: list[StepRecord] = []

    def on_run_start(self, settings: Mapping[str, Any]) -> None:
        self._tell(lambda tracker: tracker.start(settings))

    def on_step(self, record: StepRecord) -> None:
        self._steps.append(record)

    def on_epoch(self, record: EpochRecord) -> None:
        before = (record.epoch - 1) * (record.steps + record.skipped)
        steps = [(before + step.step, _values(step)) for step in self._steps]
        self._steps = []
        self._tell(lambda tracker: tracker.log(steps, record.epoch, _values(record)))

    def on_run_end(self, results: Mapping[str, float], failed: bool) -> None:
        self._tell(lambda tracker: tracker.finish(dict(results), failed))

    def _tell(self, message: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._trackers.items()):
            try:
                message(tracker)
            except Exception as error:  # whatever it is, the run matters more
                del self._trackers[name]
                logger.warning(
                    "%s failed and is told nothing more; the run goes on (%s: %s).",
                    name, type(error).__name__, printable(str(error)),
                )  # fmt: skip


def _values(record: StepRecord | EpochRecord) -> Values:
    """What was measured; values that don't exist are left out."""
    return {
        name: float(value)
        for name, value in asdict(record).items()
        if name not in NOT_MEASURED and math.isfinite(value)
    }
