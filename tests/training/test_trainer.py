"""The trainer on a module and a loss of its own: interrupted anywhere, and as on an accelerator."""

from __future__ import annotations

import copy
import itertools
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import torch
from tape import TapeGraphs
from torch import Tensor, nn

from promptot.data import Batch
from promptot.errors import NotFinite, PromptotError
from promptot.recipes import OptimConfig
from promptot.training.averaging import WeightAverage
from promptot.training.checkpoint import CheckpointFile, read_checkpoint
from promptot.training.interruption import Interruptions
from promptot.training.listener import SILENT, Listener, Listeners
from promptot.training.loss import BatchLoss
from promptot.training.trainer import Trainer
from promptot.training.training_log import MEASURED, EpochRecord, Log, StepRecord

NAMES = [f"{i}.png" for i in range(8)]


class Remembering:
    """Squared error, and the mean of the losses so far: a loss that depends on earlier steps."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.mean = torch.tensor(0.0)

    def draw(self, epoch: int, step: int) -> Tensor:
        return torch.tensor([float(epoch * step)])

    def __call__(self, batch: Batch, drawn: Tensor | None = None) -> BatchLoss:
        error = (self.module(batch.images) - batch.labels[:, None]).square().mean()
        assert drawn is not None
        error = error * (1 + drawn[0] / 10)
        self.mean = 0.5 * self.mean + 0.5 * error.detach()
        return BatchLoss(error * (1 + self.mean), torch.stack([error.detach()] * len(MEASURED)))

    def state_dict(self) -> dict[str, Tensor]:
        return {"mean": self.mean}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.mean = state["mean"]


class Made:
    """Two batches of four an epoch; those of `bad` hold a NaN."""

    def __init__(self, *bad: tuple[int, int]) -> None:
        self.bad = bad

    def __len__(self) -> int:
        return 2

    def batches(self, epoch: int) -> Iterator[Batch]:
        generator = torch.Generator().manual_seed(epoch)
        for number in range(2):
            images = torch.randn(4, 3, generator=generator)
            if (epoch, number + 1) in self.bad:
                images[1, 2] = float("nan")
            indices = torch.arange(4 * number, 4 * number + 4)
            yield Batch(images, indices % 3, indices)


def build(
    folder: Path | None = None,
    *bad: tuple[int, int],
    deferred: bool | None = False,
    tape: bool = False,
    epochs: int = 3,
    loss_scale: float = 1.0,
    listener: Listener = SILENT,
    **config: Any,
) -> Trainer:
    """A trainer of a linear layer, epochs of two steps."""
    torch.manual_seed(0)
    module = nn.Linear(3, 1)
    if folder is not None:
        folder.mkdir(exist_ok=True)
    trainer = Trainer(
        module,
        Remembering(module),
        Made(*bad),
        OptimConfig(lr=0.05, epochs=epochs, batch_size=4, **config),
        Log(folder),
        averaging=WeightAverage([0.2, 0.3, 0.5, 0.1, 0.1, 0.1][:epochs]),
        checkpoint=None if folder is None else CheckpointFile(folder / "checkpoint"),
        images=NAMES,
        listener=listener,
        deferred=deferred,
        loss_scale=loss_scale,
    )
    if tape:
        assert trainer._device_step is not None
        trainer._device_step.graphs = TapeGraphs()
    trainer.setup()
    return trainer


def result(trainer: Trainer) -> tuple[bytes, str]:
    """What a finished training leaves: the bits of its parameters, and its steps."""
    values = [p.detach().numpy().tobytes() for p in trainer.parameters]
    return b"".join(values), repr(trainer.log.steps)


def finished(*arguments: Any, **options: Any) -> tuple[bytes, str]:
    trainer = build(*arguments, **options)
    trainer.run()
    return result(trainer)


class Stop:
    """Sends a signal before the n-th line that the trainer, the optimiser and the like execute."""

    FILES = ("training/", "optim/sgd.py", "test_trainer.py")

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self, frame: FrameType, event: str, argument: object) -> Stop | None:
        path = frame.f_code.co_filename
        if not any(part in path for part in self.FILES):
            return None
        if event == "line":
            self.left -= 1
            if self.left == 0:
                sys.settrace(None)
                signal.raise_signal(signal.SIGINT)
        return self


@pytest.fixture
def as_at_a_terminal() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("as_at_a_terminal")
@pytest.mark.parametrize("mode", ["checked", "skipping", "deferred"])
def test_control_c_before_any_line_loses_no_bit(tmp_path: Path, mode: str) -> None:
    """Also in the middle of the optimiser's step, of the average and of a checkpoint."""
    bad = [(2, 1)] if mode == "skipping" else []
    options = {"on_nonfinite": "skip"} if mode == "skipping" else {"deferred": mode == "deferred"}
    expected = finished(None, *bad, **options)
    places: set[tuple[int, int]] = set()
    stride = int(os.environ.get("PROMPTOT_LINE_STRIDE", "61"))  # 1 takes minutes
    for number in itertools.count(1 if stride == 1 else 13, stride):
        folder = tmp_path / str(number)
        trainer = build(folder, *bad, **options)
        stop = Stop(number)
        sys.settrace(stop)
        try:
            trainer.run()
        except KeyboardInterrupt:
            pass
        else:
            assert stop.left > 0
            break
        finally:
            sys.settrace(None)
        if trainer.position.epoch or trainer.position.step:
            stored = read_checkpoint(folder / "checkpoint")
            assert (stored.epoch, stored.step) == (trainer.position.epoch, trainer.position.step)
        places.add((trainer.position.epoch, trainer.position.step))
        assert finished(folder, *bad, **options) == expected, number
    assert len(places) >= 6


@pytest.mark.usefixtures("as_at_a_terminal")
@pytest.mark.parametrize("deferred", [False, True])
def test_control_c_within_the_update_waits_for_its_end(tmp_path: Path, deferred: bool) -> None:
    expected = finished(deferred=deferred)
    trainer = build(tmp_path, deferred=deferred)
    taken = itertools.count(1)

    def interrupt(*_: object) -> None:
        if next(taken) == 4:
            signal.raise_signal(signal.SIGINT)

    trainer.optimizer.register_step_pre_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert (trainer.position.epoch, trainer.position.step) == (1, 2)
    stored = read_checkpoint(tmp_path / "checkpoint")
    assert (stored.epoch, stored.step, len(stored.records)) == (1, 2, 2)
    assert finished(tmp_path, deferred=deferred) == expected


def test_a_signal_is_held_and_then_handled() -> None:
    interruptions, heard = Interruptions(), []
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with interruptions.caught():
            signal.raise_signal(signal.SIGINT)
            assert heard == [signal.SIGINT]
            with interruptions.held():
                signal.raise_signal(signal.SIGINT)
                assert heard == [signal.SIGINT]
            assert heard == [signal.SIGINT] * 2
        signal.raise_signal(signal.SIGINT)
        assert heard == [signal.SIGINT] * 3
    finally:
        signal.signal(signal.SIGINT, before)


def test_a_thread_trains_without_touching_signals() -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    seen: list[object] = []
    listener = Listener(on_epoch=lambda record: seen.append(signal.getsignal(signal.SIGINT)))
    trainer = build(listener=listener)
    thread = threading.Thread(target=trainer.run)
    thread.start()
    thread.join()
    assert seen == [handlers[0]] * 3
    assert result(trainer) == finished()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers


# As on an accelerator: nothing is read, and so nothing is checked, within a step.


def test_deferred_records_are_those_of_every_step() -> None:
    told: list[tuple[int, int]] = []
    listener = Listener(on_step=lambda record: told.append((record.epoch, record.step)))
    trainer, checked = build(deferred=True, listener=listener), build()
    for each in (trainer, checked):
        each.run()
    for own, other in zip(trainer.parameters, checked.parameters, strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)
    for one, same in zip(trainer.log.steps, checked.log.steps, strict=True):
        assert vars(one) == pytest.approx(vars(same), rel=1e-4, nan_ok=True)
    assert told == [(epoch, step) for epoch in (1, 2, 3) for step in (1, 2)]


def test_a_deferred_step_asks_the_host_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = build(deferred=True)
    batches = [*trainer.loader.batches(1), *trainer.loader.batches(2)]

    def refuse(*_: object) -> None:
        raise AssertionError("the device was waited for")

    for name in ("__bool__", "item", "tolist", "__float__"):
        monkeypatch.setattr(Tensor, name, refuse)
    for batch in batches:
        trainer.step(batch)
    monkeypatch.undo()
    trainer._read()
    assert [record.step for record in trainer.records] == [1, 2, 3, 4]


@pytest.mark.parametrize("bad", [(1, 1), (2, 1), (2, 2)])
def test_what_is_not_finite_changes_nothing_until_it_is_found(
    tmp_path: Path, bad: tuple[int, int]
) -> None:
    errors = []
    for name, deferred in (("checked", False), ("deferred", True)):
        trainer = build(tmp_path / name, bad, deferred=deferred)
        with pytest.raises(NotFinite) as caught:
            trainer.run()
        errors.append(str(caught.value))
        good = [p.clone() for p in trainer.parameters]
        assert all(value.isfinite().all() for value in good)
        checkpoint = tmp_path / name / "checkpoint"
        assert checkpoint.exists() == (bad[0] == 2)
        if checkpoint.exists():
            assert read_checkpoint(checkpoint).epoch == 1
    assert errors[0] == errors[1]
    assert f"Epoch {bad[0]}, step {bad[1]}: The loss is not finite" in errors[0]
    assert "The images themselves hold such values" in errors[0]
    assert f"'{4 * (bad[1] - 1)}.png'" in errors[0]
    whole = finished(on_nonfinite="skip")
    skipped = build(tmp_path / "skipped", bad, on_nonfinite="skip")
    skipped.run()
    assert skipped.log.skipped == 1
    assert result(skipped) != whole


@pytest.mark.parametrize("mode", ["stop", "skip"])
def test_steps_that_are_not_replayed_say_why(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr("promptot.training.trainer.graph_maker", lambda _: TapeGraphs())
    told: list[str] = []
    listener = Listener(on_warning=told.append)
    trainer = build(deferred=None, listener=listener, on_nonfinite=mode)
    assert trainer.deferred == (mode == "stop")
    assert [("on_nonfinite=skip" in text) for text in told] == [True] * (mode == "skip")


def test_no_step_after_a_bad_one_is_taken() -> None:
    """Though the next batch is good, and its gradients are finite."""
    trainer = build(None, (1, 1), deferred=True)
    start = [p.clone() for p in trainer.parameters]
    for batch in trainer.loader.batches(1):
        trainer.step(batch)
    assert all(torch.equal(a, b) for a, b in zip(start, trainer.parameters, strict=True))
    with pytest.raises(NotFinite, match="Epoch 1, step 1"):
        trainer._read()


def test_an_interruption_behind_a_bad_step_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    trainer = build(tmp_path, (2, 1), deferred=True)
    steps = itertools.count(1)

    def interrupt(*_: object) -> None:
        if next(steps) == 4:
            raise KeyboardInterrupt

    trainer.optimizer.register_step_post_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        trainer.run()
    assert read_checkpoint(tmp_path / "checkpoint").epoch == 1


@pytest.mark.parametrize("deferred", [False, True])
def test_a_loss_that_is_scaled_by_a_power_of_two_gives_the_same_bits(deferred: bool) -> None:
    assert finished(deferred=deferred, loss_scale=128.0) == finished(deferred=deferred)


# Replayed, as a CUDA graph is.


OPTIMIZERS = [
    {},
    {"optimizer": "adamw", "weight_decay": 0.01, "schedule": "steps", "min_lr": 0.001},
    {"optimizer": "adam", "betas": (0.8, 0.9), "eps": 1e-4},
]


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda o: o.get("optimizer", "sgd"))
@pytest.mark.parametrize("deferred", [False, True])
def test_every_optimiser_goes_on_where_it_stopped(
    tmp_path: Path, options: dict[str, Any], deferred: bool
) -> None:
    expected = finished(deferred=deferred, epochs=5, **options)
    interrupted = build(
        tmp_path, deferred=deferred, epochs=5, listener=Listener(on_epoch=stop), **options
    )
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    assert finished(tmp_path, deferred=deferred, epochs=5, **options) == expected
    assert finished(deferred=deferred, epochs=5) != expected or not options


def test_adamw_is_that_of_torch_with_the_published_schedule() -> None:
    trainer = build(epochs=3, warmup_epochs=0, **OPTIMIZERS[1])
    plain = copy.deepcopy(trainer.module)
    optimizer = torch.optim.AdamW(plain.parameters(), 0.05, weight_decay=0.01)
    loss, number = Remembering(plain), 0
    for epoch in (1, 2, 3):
        for step, batch in enumerate(trainer.loader.batches(epoch), start=1):
            share = number / 6
            optimizer.param_groups[0]["lr"] = 0.001 + 0.0245 * (1 + math.cos(math.pi * share))
            optimizer.zero_grad()
            loss(batch, loss.draw(epoch, step)).total.backward()
            optimizer.step()
            number += 1
    trainer.averaging = None
    trainer.run()
    for own, other in zip(trainer.parameters, plain.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-6, atol=1e-7)
    assert len({record.lr for record in trainer.log.steps}) == 6


def test_a_checkpoint_of_another_optimiser_is_refused(tmp_path: Path) -> None:
    interrupted = build(tmp_path, listener=Listener(on_epoch=stop), epochs=5)
    with pytest.raises(KeyboardInterrupt):
        interrupted.run()
    with pytest.raises(PromptotError, match="another optimiser"):
        build(tmp_path, epochs=5, **OPTIMIZERS[1])


@pytest.mark.parametrize("options", OPTIMIZERS, ids=lambda o: o.get("optimizer", "sgd"))
@pytest.mark.parametrize("resumed", [False, True])
def test_replayed_steps_have_the_bits_of_those_that_are_launched(
    tmp_path: Path, resumed: bool, options: dict[str, Any]
) -> None:
    expected = finished(deferred=True, epochs=6, **options)
    folder = None
    if resumed:
        folder = tmp_path
        interrupted = build(
            folder, deferred=True, tape=True, epochs=6, listener=Listener(on_epoch=stop), **options
        )
        with pytest.raises(KeyboardInterrupt):
            interrupted.run()
    trainer = build(folder, deferred=True, tape=True, epochs=6, **options)
    trainer.run()
    assert trainer._device_step is not None
    assert trainer._device_step.graphs is not None
    assert trainer._device_step.graphs.tapes  # it was recorded
    assert result(trainer) == expected


def stop(record: EpochRecord) -> None:
    if record.epoch == 3:
        raise KeyboardInterrupt


# Listeners.


class Cells(Listener):
    """A listener with an event of its own."""

    def on_cell(self, name: str) -> None:
        """A cell is done."""


class Heard(Cells):
    def __init__(self) -> None:
        self.told: list[object] = []

    def on_epoch(self, record: EpochRecord) -> None:
        self.told.append(record)

    def on_cell(self, name: str) -> None:
        self.told.append(name)


def test_what_a_listener_hears() -> None:
    assert not Listener().hears("on_step")
    assert Listener(on_step=print).hears("on_step")
    assert not Listener(on_step=None).hears("on_step")
    assert Heard().hears("on_epoch")
    assert Heard().hears("on_cell")
    assert not Cells().hears("on_cell")
    assert not Heard().hears("on_step")
    with pytest.raises(TypeError, match="no event 'on_stop'"):
        Listener(on_stop=print)


def test_several_listeners_are_one() -> None:
    told: list[object] = []
    first, second = Heard(), Listener(on_step=told.append)
    both: Any = Listeners(first, second, Listener())
    assert both.hears("on_epoch")
    assert both.hears("on_step")
    assert both.hears("on_cell")
    assert not both.hears("on_estimate")
    step = StepRecord(1, 1, 0.1, *[0.0] * 8)
    both.on_step(step)
    both.on_cell("one")
    both.on_estimate(None)
    both.on_run_end({}, failed=True)
    assert told == [step]
    assert first.told == ["one"]
    nested: Any = Listeners(both)
    nested.on_cell("two")
    assert first.told == ["one", "two"]
