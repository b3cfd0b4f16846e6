"""What trackers are told, read back by their own means; and that none of them can end a run."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

import promptot
from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.runs.run import Run
from promptot.runs.tracking.tracker import Tracking, Values, open_trackers
from promptot.training.listener import Listener, Listeners
from promptot.training.training_log import StepRecord, summarise

Fit = Callable[..., Run]
QUICK = ("optim.epochs=2", "optim.batch_size=4")


@pytest.fixture
def fit(photos: Path, tmp_path: Path, backbone: Backbone) -> Fit:
    def run(*log: str, **more: Any) -> Run:
        more.setdefault("out", tmp_path / "run")
        return promptot.fit(photos, backbone=backbone, shots=2, overrides=QUICK, log=log, **more)

    return run


def test_tensorboard_files_hold_what_the_csv_files_hold(fit: Fit, tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit("tensorboard", seed=5)  # replaced below, curves and all
    run = fit("tensorboard", overwrite=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    losses = events.Scalars("step/total")
    assert [event.step for event in losses] == list(range(1, len(run.log.steps) + 1))
    assert [event.value for event in losses] == pytest.approx([s.total for s in run.log.steps])
    means = events.Scalars("epoch/accuracy")
    assert [event.step for event in means] == [1, 2]
    assert [event.value for event in means] == pytest.approx([e.accuracy for e in run.log.epochs])
    (result,) = events.Scalars("result/test_accuracy")
    assert result.value == pytest.approx(run.scores["test"].student_accuracy, abs=1e-6)
    assert b"optim.lr" in events.Tensors("settings/text_summary")[0].tensor_proto.string_val[0]
    assert (tmp_path / "run" / "steps.csv").is_file()


def test_mlflow_keeps_them_in_a_local_store(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    run = fit("mlflow")
    client = mlflow.MlflowClient(tracking_uri=(tmp_path / "mlruns").as_uri())
    experiment = client.get_experiment_by_name("promptot")
    (stored,) = client.search_runs([experiment.experiment_id])
    assert stored.info.run_name == "run"
    assert stored.info.status == "FINISHED"
    assert stored.data.params["optim.batch_size"] == "4"
    assert stored.data.params["seed"] == "1"
    losses = client.get_metric_history(stored.info.run_id, "step/total")
    assert [metric.value for metric in losses] == pytest.approx([s.total for s in run.log.steps])
    assert stored.data.metrics["test_accuracy"] == pytest.approx(
        run.scores["test"].student_accuracy, abs=1e-6
    )


def test_wandb_off_line(fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = fit("wandb")
    (written,) = (tmp_path / "run" / "wandb").glob("offline-run-*/run-*.wandb")
    content = written.read_bytes()
    for word in (b"step/total", b"epoch/accuracy", b"test_accuracy", b"optim.batch_size"):
        assert word in content
    assert len(run.log.epochs) == 2


class Recorder:
    """A tracker of ours, which fails where it is told to."""

    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[tuple[str, Any]] = []

    def _hear(self, what: str, content: Any) -> None:
        self.told.append((what, content))
        if what == self.fails:
            raise ConnectionError("no route to host")

    def start(self, settings: Mapping[str, Any]) -> None:
        self._hear("start", dict(settings))

    def log(self, steps: Sequence[tuple[int, Values]], epoch: int, means: Values) -> None:
        self._hear("log", (steps, epoch, means))

    def finish(self, results: Values, failed: bool) -> None:
        self._hear("finish", (results, failed))


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_a_tracker_that_fails_is_named_once_and_left_out(
    fit: Fit, caplog: pytest.LogCaptureFixture, fails: str
) -> None:
    bad, good = Recorder(fails), Recorder()
    with caplog.at_level(logging.WARNING):
        run = fit(listener=Tracking({"bad": bad, "good": good}))
    assert run.scores["test"] is not None
    assert [what for what, _ in good.told] == ["start", "log", "log", "finish"]
    assert [what for what, _ in bad.told].count(fails) == 1
    assert bad.told[-1][0] == fails
    (message,) = [record.getMessage() for record in caplog.records]
    assert message.startswith("bad failed")
    assert "no route to host" in message


def test_trackers_hear_every_step_and_values_that_exist(fit: Fit) -> None:
    recorder = Recorder()
    run = fit(listener=Tracking({"ours": recorder}))
    logged = [content for what, content in recorder.told if what == "log"]
    numbers = [number for steps, _, _ in logged for number, _ in steps]
    assert numbers == list(range(1, len(run.log.steps) + 1))
    assert "vocabulary_plan_entropy" not in logged[0][2]  # this recipe has no such term
    assert logged[0][2]["total"] == run.log.epochs[0].total
    results, failed = recorder.told[-1][1]
    assert failed is False
    assert results["test_accuracy"] == pytest.approx(run.scores["test"].student_accuracy, abs=1e-6)


def test_steps_are_counted_on_over_batches_that_were_left_out() -> None:
    recorder = Recorder()
    tracking = Tracking({"ours": recorder})
    for epoch, steps in ((1, [1, 2, 3, 4, 5]), (2, [1, 3, 5]), (3, [2])):
        records = [StepRecord(epoch, step, *[0.0] * 9) for step in steps]
        for record in records:
            tracking.on_step(record)
        tracking.on_epoch(summarise(records, seconds=1.0, skipped=5 - len(steps)))
    numbers = [n for what, content in recorder.told if what == "log" for n, _ in content[0]]
    assert numbers == [1, 2, 3, 4, 5, 6, 8, 10, 12]


def test_a_run_in_memory_is_told_from_its_start_to_its_end(fit: Fit) -> None:
    recorder = Recorder()
    run = fit(out=None, listener=Tracking({"ours": recorder}))
    assert [what for what, _ in recorder.told] == ["start", "log", "log", "finish"]
    assert recorder.told[0][1]["task"] == run.task.name


def test_an_interrupted_run_is_told_as_failed(fit: Fit) -> None:
    recorder = Recorder()

    def stop(record: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(listener=Listeners(Tracking({"ours": recorder}), Listener(on_epoch=stop)))
    assert recorder.told[-1] == ("finish", ({}, True))
    run = fit(listener=Tracking({"ours": recorder}), resume=True)
    numbers = [n for what, c in recorder.told if what == "log" for n, _ in c[0]]
    assert numbers == list(range(1, len(run.log.steps) + 1))


def test_unknown_and_missing_trackers(
    fit: Fit, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(PromptotError, match="Did you mean 'tensorboard'"):
        fit("tensorbord")
    for name in ("tensorboard", "wandb", "mlflow"):
        monkeypatch.setitem(sys.modules, name, None)
        with pytest.raises(PromptotError, match=rf"pip install {name} .*promptot\[track\]"):
            open_trackers([name], tmp_path)
    assert not (tmp_path / "run").exists()
