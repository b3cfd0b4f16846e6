"""The training loop: the parameters of a module learn from the loss of batches."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from promptot.data.loader import Batch
from promptot.errors import NotFinite, PromptotError
from promptot.graphs import graph_maker
from promptot.recipes.schema import OptimConfig
from promptot.training.averaging import WeightAverage
from promptot.training.checkpoint import (
    Checkpoint,
    CheckpointFile,
    copy_state,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from promptot.training.device_step import DeviceStep
from promptot.training.finite import (
    describe_nonfinite,
    explain_nonfinite,
    finite_gradients,
    require_finite,
)
from promptot.training.gradients import backpropagate
from promptot.training.interruption import Interruptions
from promptot.training.listener import SILENT, Listener
from promptot.training.loss import BatchLoss, Loss
from promptot.training.optimizers import build_optimizer, set_rate
from promptot.training.schedule import learning_rate
from promptot.training.training_log import MEASURED, Log, StepRecord

READ_SECONDS = 0.5
"""How long the records of steps may stay on an accelerator: to fetch them waits for it."""
LAUNCHED = "optim.on_nonfinite=skip keeps steps from being replayed as CUDA graphs: slower ones."


class Loader(Protocol):
    """Batches of images or of patch tokens, epoch by epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 1; the same ones whenever it is asked for."""
        ...


@dataclass(frozen=True, eq=False)
class Position:
    """How far a training has come, between two steps.

    Attributes:
        epoch: whole epochs.
        step: batches of the next one.
        skipped: of these, the ones that were left out because something was not finite.
        remembered: the state of the loss.
    """

    epoch: int = 0
    step: int = 0
    skipped: int = 0
    remembered: Mapping[str, Tensor] = field(default_factory=dict)


class _Unread(NamedTuple):
    """The record of a step, still on the device."""

    step: int
    lr: float
    images: Tensor  # the indices of the batch's, on the host, [B]
    values: Tensor  # `MEASURED`; then, where they are not checked in each step, two flags


@dataclass(eq=False)
class Trainer:
    """Trains a module in place: `setup`, then `run`.

    Args:
        module: on the device to use; all its parameters learn.
        loss: what is minimised; what it remembers is part of a checkpoint.
        loader: gives the batches.
        config: optimiser and schedule.
        log: where each epoch's records go.
        epochs: stop after this many, of the `config.epochs` that the schedule spans.
        averaging: what the parameters become at the end; None leaves them as the last step did.
            Training goes on from the unaveraged ones, and checkpoints hold both.
        checkpoint: written after every epoch, within long ones too, and when the process is told
            to stop (`KeyboardInterrupt`, `SystemExit`); None for none.
        images: the name of each image, by its index, for messages.
        listener: hears of steps and epochs.
        loss_scale: what the loss is multiplied and its gradients are divided by, see `scale_of`.

    Attributes:
        position: what the parameters have been through; the two change together, also where a
            signal comes in the middle of a step.
        deferred: steps are `DeviceStep`s: nothing waits for the device, what is not finite is
            masked there, and found when the records are read. By default so it is on CUDA, unless
            such batches are to be left out, which the next step has to know.
    """

    module: nn.Module
    loss: Loss
    loader: Loader
    config: OptimConfig
    log: Log
    epochs: int | None = None
    averaging: WeightAverage | None = None
    checkpoint: CheckpointFile | None = None
    images: Sequence[str] = ()
    listener: Listener = SILENT
    deferred: bool | None = None
    loss_scale: float = 1.0

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())
        self.device = self.parameters[0].device
        config, self.last_epoch = self.config, self.epochs or self.config.epochs
        graphs = graph_maker(self.device)
        if self.deferred is None:
            self.deferred = graphs is not None and config.on_nonfinite == "stop"
            if graphs is not None and not self.deferred:
                self.listener.on_warning(LAUNCHED)
        self.optimizer = build_optimizer(self.parameters, config, self.deferred)
        self._rate = config.lr
        self._device_step: DeviceStep | None = None
        if self.deferred:
            how = graphs, self.listener.on_warning, self.loss_scale
            self._device_step = DeviceStep(self.parameters, self.loss, self.optimizer, *how)
        self.position = self._saved = Position(remembered=self.loss.state_dict())
        self.records: list[StepRecord] = []  # of the epoch, as far as they are read
        self._unread: list[_Unread] = []
        self._told = 0  # records that the listener has heard of
        self._read_at = self._saved_at = time.monotonic()
        self._interruptions = Interruptions()

    def setup(self) -> None:
        """Go on from the checkpoint, if there is one, to the bit as if nothing had stopped.

        Raises:
            PromptotError: it is damaged, or of another run.
        """
        if self.checkpoint is None or not self.checkpoint.path.is_file():
            return
        stored = read_checkpoint(self.checkpoint.path)
        if (stored.epoch, stored.step) > (self.last_epoch, 0):
            raise PromptotError(
                f"The checkpoint '{self.checkpoint.path}' is of epoch {stored.epoch} of "
                f"{self.last_epoch}.",
                fix="Resume with the recipe of the run, or start again with --overwrite.",
            )
        restore(stored, self.module, self.optimizer)
        self.loss.load_state_dict(stored.objective)
        if self.averaging is not None and stored.epoch:
            self.averaging.load_state_dict(stored.average, self.device)
        self.log.restore(stored.epoch)
        self.records, self._told = list(stored.records), len(stored.records)
        self.position = self._saved = Position(
            stored.epoch, stored.step, stored.skipped, self.loss.state_dict()
        )

    def run(self) -> None:
        """Train to the last epoch.

        Raises:
            NotFinite: a loss or a gradient is not finite, and such batches are not skipped.
            PromptotError: an epoch has no batch, or a file can't be written.
        """
        self.listener.on_start(self.position.epoch, self.last_epoch)
        with self._interruptions.caught():
            try:
                for epoch in range(self.position.epoch + 1, self.last_epoch + 1):
                    self._run_epoch(epoch)
            except (KeyboardInterrupt, SystemExit):
                with contextlib.suppress(NotFinite):
                    self.save()
                raise
            finally:
                if self._device_step is not None:
                    self._device_step.close()
        if self.averaging is not None:
            self.averaging.copy_to(self.module)
        require_finite(self.module)

    def _run_epoch(self, epoch: int) -> None:
        began = time.perf_counter()
        for batch in itertools.islice(self.loader.batches(epoch), self.position.step, None):
            self.step(batch)
            if self.checkpoint and time.monotonic() - self._saved_at >= self.checkpoint.seconds:
                self.save()
            if not self.deferred or time.monotonic() - self._read_at >= READ_SECONDS:
                self._tell_steps()
        self._tell_steps()
        if not self.records:
            raise _empty_epoch(epoch, self.config.batch_size, self.position.skipped)
        seconds = time.perf_counter() - began
        summary = self.log.add_epoch(self.records, seconds, self.position.skipped)
        with self._interruptions.held():
            if self.averaging is not None:
                self.averaging.add(epoch, self.module)
            self.position = Position(epoch, remembered=self.position.remembered)
            self.records, self._told = [], 0
        self.save()
        self.listener.on_epoch(summary)

    def step(self, loaded: Batch) -> None:
        """Take the next step of the epoch, or leave its batch out if such are skipped.

        Raises:
            NotFinite: the loss or a gradient is not, in this step or, where records are deferred,
                in an earlier one; no parameter has changed since.
        """
        before = self.position
        epoch, step = before.epoch + 1, before.step + 1
        try:
            values = self._advance(loaded, epoch, step)
            self._unread.append(_Unread(step, self._rate, loaded.indices, values))
            self.position = replace(before, step=step, remembered=self.loss.state_dict())
        except NotFinite as error:
            self._read()  # an earlier step of these may be the cause
            if self.config.on_nonfinite != "skip":
                finite = bool(loaded.images.isfinite().all())
                raise self._explain(error, step, loaded.indices, finite) from error
            self.loss.load_state_dict(before.remembered)
            self.position = replace(before, step=step, skipped=before.skipped + 1)
        except PromptotError as error:
            where = f"Epoch {epoch}, step {step}: {error.problem}"
            raise PromptotError(where, fix=error.fix) from error
        finally:
            self._interruptions.release()

    def _advance(self, loaded: Batch, epoch: int, step: int) -> Tensor:
        """All that a step does: forward, plan, backward, check, update, record.

        Returns:
            the record, see `_Unread`.

        Raises:
            NotFinite: the loss or a gradient is not, so that there was no update; where steps are
                deferred, only what a transport solver on the host has found.
        """
        drawn = self.loss.draw(epoch, step)
        self._set_rate(learning_rate(epoch, self.config, step, len(self.loader)))
        if self._device_step is not None:
            self._interruptions.hold()  # until `step` has noted it
            return self._device_step(loaded, drawn)
        loss = self._backpropagate(loaded, drawn)
        finite = loss.total.detach().isfinite() & finite_gradients(self.parameters)
        if not bool(finite):
            raise describe_nonfinite(*loss.measured[:3].tolist())
        self._interruptions.hold()
        self.optimizer.step()
        return loss.measured

    def _backpropagate(self, loaded: Batch, drawn: Tensor | None) -> BatchLoss:
        """The loss of a batch; its gradients are left at the parameters."""
        loss = self.loss(loaded.to(self.device), None if drawn is None else drawn.to(self.device))
        self.optimizer.zero_grad()
        backpropagate(loss, self.parameters, self.loss_scale)
        if self.loss_scale != 1:
            gradients = [p.grad for p in self.parameters if p.grad is not None]
            torch._foreach_mul_(gradients, 1 / self.loss_scale)
        return loss

    def _set_rate(self, rate: float) -> None:
        if rate != self._rate:
            self._rate = rate
            set_rate(self.optimizer, rate)

    def _read(self) -> None:
        """Bring what is recorded of the last steps to the host, in one transfer.

        Raises:
            NotFinite: one of the losses or gradients was not.
        """
        if not self._unread:
            return
        epoch = self.position.epoch + 1
        read = []
        rows = torch.stack([unread.values for unread in self._unread]).tolist()
        for (step, lr, images, _), row in zip(self._unread, rows, strict=True):
            values, flags = row[: len(MEASURED)], row[len(MEASURED) :]
            if flags and not flags[0]:
                problem = describe_nonfinite(*values[:3])
                raise self._explain(problem, step, images, bool(flags[1]))
            read.append(StepRecord(epoch, step, lr, *values))
        with self._interruptions.held():
            self.records += read
            self._unread = []
        self._read_at = time.monotonic()

    def _tell_steps(self) -> None:
        self._read()
        while self._told < len(self.records):
            self._told += 1
            self.listener.on_step(self.records[self._told - 1])

    def save(self) -> None:
        """Write a checkpoint of the position, if there is a place for it and anything is new.

        Raises:
            NotFinite: nothing could go on from it; what was there before stays.
            PromptotError: it can't be written.
        """
        if self.checkpoint is None or self.position is self._saved:
            return
        self._read()
        position, run = self.position, self.checkpoint.run
        average = {} if self.averaging is None else self.averaging.state_dict()
        done = position.epoch, position.step, position.skipped
        state = *copy_state(self.module, self.optimizer), average, position.remembered
        save_checkpoint(self.checkpoint.path, Checkpoint(*done, run, *state, self.records))
        self._saved, self._saved_at = position, time.monotonic()

    @contextlib.contextmanager
    def rehearsing(self) -> Iterator[Callable[[Batch], object]]:
        """Tries steps of the next epoch on batches, and leaves no trace of them."""
        epoch, device_step = self.position.epoch + 1, self._device_step
        attempt = self._backpropagate if device_step is None else device_step
        with contextlib.nullcontext() if device_step is None else device_step.undone():
            yield lambda loaded: attempt(loaded, self.loss.draw(epoch, 1))
        self.loss.load_state_dict(self.position.remembered)

    def _explain(self, error: NotFinite, step: int, images: Tensor, finite: bool) -> NotFinite:
        """What was not finite, with the step, its images and the cause."""
        names = [self.images[i] for i in images.tolist() if i < len(self.images)]
        place = f"Epoch {self.position.epoch + 1}, step {step}"
        return explain_nonfinite(error, place, names, finite, self.module)


def _empty_epoch(epoch: int, batch_size: int, skipped: int) -> PromptotError:
    if skipped:
        return NotFinite(
            f"All {skipped} batches of epoch {epoch} were left out: none had a finite loss.",
            fix="Lower optim.lr or objective.strength, or look for the cause with "
            "optim.on_nonfinite=stop.",
        )
    return PromptotError(
        f"Epoch {epoch} has no batch: none of its images could be read, or there are fewer than "
        "the batch size.",
        fix=f"Check the images, lower optim.batch_size (now {batch_size}) or set "
        "optim.drop_last=false.",
    )
