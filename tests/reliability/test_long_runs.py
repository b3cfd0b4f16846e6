"""Thousands of epochs: memory stays flat, and so does the size of the logs."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.data import Batch, ImageTask, load_bundled
from promptot.recipes import load_recipe
from promptot.runs.learning import adapt
from promptot.training.estimate import resident_bytes
from promptot.training.listener import Listener
from promptot.training.training_log import MOST_STEPS, EpochRecord, Log, StepRecord

NAMES = ("cat", "hot dog", "bee")


def step(epoch: int, number: int) -> StepRecord:
    return StepRecord(epoch, number, 0.1, *[float(epoch * 100 + number)] * 8)


def filled(folder: Path | None, epochs: int, steps: int = 3, most: int = MOST_STEPS) -> Log:
    log = Log(folder, most)
    for epoch in range(1, epochs + 1):
        log.add_epoch([step(epoch, number + 1) for number in range(steps)], 1.0)
    return log


def test_short_runs_are_logged_whole(tmp_path: Path) -> None:
    log = filled(tmp_path, 20)
    assert [(s.epoch, s.step) for s in log.steps] == [
        (e, n) for e in range(1, 21) for n in (1, 2, 3)
    ]
    assert len((tmp_path / "steps.csv").read_text().splitlines()) == 61


@pytest.mark.parametrize("epochs", [34, 66, 67, 500])
def test_long_runs_keep_every_second_step_and_so_on(epochs: int) -> None:
    log = filled(None, epochs, most=100)
    assert 50 < len(log.steps) <= 100
    numbers = [3 * (s.epoch - 1) + s.step - 1 for s in log.steps]
    stride = numbers[1]
    assert stride & (stride - 1) == 0
    assert numbers == list(range(0, 3 * epochs, stride))
    assert len(log.epochs) == epochs
    assert log.step_count == 3 * epochs
    whole = [step(e, n).total for e in range(1, epochs + 1) for n in (1, 2, 3)]
    assert log.mean("total") == pytest.approx(sum(whole) / len(whole), rel=1e-12)
    assert log.mean("vocabulary") is None


@pytest.mark.parametrize("stop", [10, 33, 66])
def test_a_thinned_log_goes_on_as_it_was(tmp_path: Path, stop: int) -> None:
    """Also where the file has an epoch, and a stride, more than the checkpoint knows of."""
    filled(tmp_path / "whole", 70, most=100)
    filled(tmp_path / "cut", stop + 1, most=100)
    log = Log(tmp_path / "cut", 100)
    log.restore(stop)
    for epoch in range(stop + 1, 71):
        log.add_epoch([step(epoch, number) for number in (1, 2, 3)], 1.0)
    for name in ("steps.csv", "epochs.csv"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


class Made:
    def __len__(self) -> int:
        return 1

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        images = torch.randn(3, 3, 16, 16, generator=generator)
        yield Batch(images, torch.arange(3), torch.arange(3))


def growth(sizes: list[int]) -> float:
    """By how much the later half is above what the first quarter ends with, as a share of it."""
    return max(sizes[len(sizes) // 2 :]) / sizes[len(sizes) // 4] - 1


def test_memory_stays_flat(small_file: Path, tmp_path: Path) -> None:
    backbone: Backbone = load_backbone(f"openai:{small_file}")
    sizes: list[int] = []
    recipe = load_recipe(
        "prompt-ot-queue", ["optim.epochs=120", "objective.queue=32", "ensembling=gaussian"]
    )
    adapt(
        backbone,
        ImageTask("made", NAMES),
        recipe,
        Log(tmp_path),
        loader=Made(),
        checkpoint=tmp_path / "checkpoint",
        listener=Listener(on_epoch=lambda record: sizes.append(resident_bytes())),
    )
    if sizes[0] == 0:
        pytest.skip("this system does not tell the memory of a process")
    assert growth(sizes) < 0.02


@pytest.mark.slow
def test_two_thousand_epochs_on_the_bundled_model(tmp_path: Path) -> None:
    epochs = int(os.environ.get("PROMPTOT_EPOCHS", "2000"))
    sizes: list[int] = []
    began = time.monotonic()

    def look(record: EpochRecord) -> None:
        sizes.append(resident_bytes())

    task = load_bundled("animals").select(range(4))
    run = promptot.fit(
        task,
        tmp_path / "run",
        shots=2,
        overrides=[f"optim.epochs={epochs}", "optim.batch_size=4", "data.views=2"],
        device="cpu",
        listener=Listener(on_epoch=look),
    )
    logs = {p.name: p.stat().st_size for p in (tmp_path / "run").glob("*.csv")}
    marks = [epoch for epoch in (1, 10, 100, 500, 1000, epochs) if epoch <= epochs]
    resident = ", ".join(f"{epoch}: {sizes[epoch - 1] / 2**20:.1f} MiB" for epoch in marks)
    print(f"{epochs} epochs in {time.monotonic() - began:.0f} s, logs {logs}")
    print(f"resident after epoch {resident}; grown by {growth(sizes):.2%}")
    assert growth(sizes) < 0.02
    assert len(run.log.epochs) == epochs
    assert logs["steps.csv"] < 250 * (MOST_STEPS + 1)
    assert logs["epochs.csv"] < 350 * (epochs + 1)
