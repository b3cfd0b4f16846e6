"""TensorBoard, Weights & Biases and MLflow, each by its own library."""

from __future__ import annotations

import importlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError

PROJECT = "promptot"
EVENTS = ".promptot"
"""At the end of the names of event files: those that a run may replace."""
MLFLOW_BATCH = 1000
"""Metrics that MLflow takes in one request."""

Steps = Sequence[tuple[int, dict[str, float]]]


class TensorBoard:
    """Event files in the run folder: `tensorboard --logdir runs`.

    Args:
        folder: the run folder.
    """

    def __init__(self, folder: Path) -> None:
        _need("tensorboard")
        self._writers = importlib.import_module("torch.utils.tensorboard")
        self.folder = folder / "tensorboard"

    def start(self, settings: Mapping[str, Any]) -> None:
        if not settings.get("resumed"):  # a run that is replaced leaves no curves behind
            for old in self.folder.glob(f"events.out.tfevents.*{EVENTS}"):
                old.unlink()
        self._writer = self._writers.SummaryWriter(str(self.folder), filename_suffix=EVENTS)
        text = json.dumps(settings, indent=2, default=str, ensure_ascii=False)
        self._writer.add_text("settings", "\n".join(f"    {line}" for line in text.splitlines()))

    def log(self, steps: Steps, epoch: int, means: dict[str, float]) -> None:
        for number, values in steps:
            for name, value in values.items():
                self._writer.add_scalar(f"step/{name}", value, number)
        for name, value in means.items():
            self._writer.add_scalar(f"epoch/{name}", value, epoch)
        self._writer.flush()

    def finish(self, results: dict[str, float], failed: bool) -> None:
        for name, value in results.items():
            self._writer.add_scalar(f"result/{name}", value, 0)
        self._writer.close()


class WeightsAndBiases:
    """A run of the project "promptot", or the one that WANDB_PROJECT names.

    Args:
        folder: the run folder; its name is the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._wandb = _need("wandb")
        self.folder = folder

    def start(self, settings: Mapping[str, Any]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._run = self._wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            name=self.folder.resolve().name,
            dir=str(self.folder),
            config=dict(settings),
        )
        self._run.define_metric("epoch/*", step_metric="epoch")

    def log(self, steps: Steps, epoch: int, means: dict[str, float]) -> None:
        for number, values in steps:
            self._run.log({f"step/{name}": value for name, value in values.items()}, step=number)
        last = steps[-1][0] if steps else epoch
        values = {f"epoch/{name}": value for name, value in means.items()}
        self._run.log({"epoch": epoch, **values}, step=last)

    def finish(self, results: dict[str, float], failed: bool) -> None:
        self._run.summary.update(results)
        self._run.finish(exit_code=1 if failed else 0)


class MLflow:
    """A run of the experiment "promptot", or the one that MLFLOW_EXPERIMENT_NAME names.

    It goes where MLFLOW_TRACKING_URI says; without that, to `mlruns` beside the run folder.

    Args:
        folder: the run folder; its name is the run's.
    """

    def __init__(self, folder: Path) -> None:
        self._mlflow = _need("mlflow")
        self._entities = importlib.import_module("mlflow.entities")
        self.folder = folder

    def start(self, settings: Mapping[str, Any]) -> None:
        place = os.environ.get("MLFLOW_TRACKING_URI")
        if place is None:
            place = (self.folder.resolve().parent / "mlruns").as_uri()
            os.environ.setdefault("MLFLOW_ALLOW_FILE_STORE", "true")
        self._client = self._mlflow.MlflowClient(tracking_uri=place)
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        found = self._client.get_experiment_by_name(name)
        experiment = found.experiment_id if found else self._client.create_experiment(name)
        run = self._client.create_run(experiment, run_name=self.folder.resolve().name)
        self._id = run.info.run_id
        for key, value in settings.items():
            self._client.log_param(self._id, key, str(value)[:500])

    def log(self, steps: Steps, epoch: int, means: dict[str, float]) -> None:
        now = int(time.time() * 1000)
        metrics = [
            self._entities.Metric(f"step/{name}", value, now, number)
            for number, values in steps
            for name, value in values.items()
        ]
        metrics += [
            self._entities.Metric(f"epoch/{name}", value, now, epoch)
            for name, value in means.items()
        ]
        for first in range(0, len(metrics), MLFLOW_BATCH):
            self._client.log_batch(self._id, metrics=metrics[first : first + MLFLOW_BATCH])

    def finish(self, results: dict[str, float], failed: bool) -> None:
        for name, value in results.items():
            self._client.log_metric(self._id, name, value)
        self._client.set_terminated(self._id, status="FAILED" if failed else "FINISHED")


def _need(library: str) -> Any:
    try:
        return importlib.import_module(library)
    except ImportError as error:
        raise PromptotError(
            f"Logging to {library} needs its library.",
            fix=f"pip install {library} (or 'promptot[track]' for all trackers)",
        ) from error
