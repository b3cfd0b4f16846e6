"""The training loop: the parameters of a module learn from the loss of batches."""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from promptot.data.loader import Batch
from promptot.errors import NotFinite, PromptotError
from promptot.objectives.objective_state import Stateful
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
from promptot.training.finite import (
    describe_nonfinite,
    explain_nonfinite,
    finite_gradients,
    require_finite,
)
from promptot.training.interruption import Interruptions
from promptot.training.listener import SILENT, Listener
from promptot.training.schedule import learning_rate
from promptot.training.training_log import MEASURED, Log, StepRecord

READ_SECONDS = 0.5
"""How long the records of steps may stay on an accelerator: to fetch them waits for it."""
TIMED_STEPS = 3


class Loader(Protocol):
    """Batches of images or of patch tokens, epoch by epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 1; the same ones whenever it is asked for."""
        ...


class BatchLoss(NamedTuple):
    """The loss of a batch, and what a log says of it."""

    total: Tensor  # 0-d, differentiable
    measured: Tensor  # the values that `MEASURED` names, detached, [F]


class Loss(Stateful, Protocol):
    """The loss of a batch; its state is what it remembers of earlier ones."""

    def __call__(self, batch: Batch, epoch: int, step: int) -> BatchLoss:
        """The loss of the batch of one step of one epoch, both counted from 1."""
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

    Attributes:
        position: what the parameters have been through; the two change together, also where a
            signal comes in the middle of a step.
        deferred: nothing waits for the device within a step: what is not finite is masked there,
            and found when the records are read. So it is on an accelerator, unless such batches
            are to be left out, which the next step has to know.
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

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())
        self.device = self.parameters[0].device
        config, self.last_epoch = self.config, self.epochs or self.config.epochs
        self.optimizer = torch.optim.SGD(
            self.parameters, config.lr, config.momentum, weight_decay=config.weight_decay
        )
        self.deferred = self.device.type != "cpu" and config.on_nonfinite == "stop"
        self.position = self._saved = Position(remembered=self.loss.state_dict())
        self.records: list[StepRecord] = []  # of the epoch, as far as they are read
        self._unread: list[_Unread] = []
        self._told = 0  # records that the listener has heard of
        self._read_at = self._saved_at = time.monotonic()
        self._interruptions = Interruptions()
        self._sound: Tensor | None = None  # where deferred: whether all was finite so far, 0-d

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
        if self.averaging is not None:
            self.averaging.copy_to(self.module)
        require_finite(self.module)

    def _run_epoch(self, epoch: int) -> None:
        began = time.perf_counter()
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(epoch, self.config)
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
        before, batch = self.position, loaded.to(self.device)
        epoch, step = before.epoch + 1, before.step + 1
        try:
            values = self._advance(batch, epoch, step)
            self._unread.append(_Unread(step, loaded.indices, values))
            self.position = replace(before, step=step, remembered=self.loss.state_dict())
        except NotFinite as error:
            self._read()  # an earlier step of these may be the cause
            if self.config.on_nonfinite != "skip":
                finite = bool(batch.images.isfinite().all())
                raise self._explain(error, step, loaded.indices, finite) from error
            self.loss.load_state_dict(before.remembered)
            self.position = replace(before, step=step, skipped=before.skipped + 1)
        except PromptotError as error:
            where = f"Epoch {epoch}, step {step}: {error.problem}"
            raise PromptotError(where, fix=error.fix) from error
        finally:
            self._interruptions.release()

    def _advance(self, batch: Batch, epoch: int, step: int) -> Tensor:
        """All that a step does on the device: forward, plan, backward, check, update, record.

        Where `deferred`, nothing here waits for the device, except in the loss: transport plans
        of more than six points check their costs and are solved on the host (`solve_exact`), those
        of other solvers check their costs; anchor words and synonyms are packed on the host and
        copied.

        Returns:
            the record, see `_Unread`.

        Raises:
            NotFinite: the loss or a gradient is not, so that there was no update; not raised where
                `deferred`.
        """
        loss = self._backpropagate(batch, epoch, step)
        finite = loss.total.detach().isfinite() & finite_gradients(self.parameters)
        if not self.deferred:
            if not bool(finite):
                raise describe_nonfinite(*loss.measured[:3].tolist())
            self._interruptions.hold()  # until `step` has noted it
            self.optimizer.step()
            return loss.measured
        flags = torch.stack([finite, batch.images.isfinite().all()])
        self._interruptions.hold()
        self._update_where(finite)
        return torch.cat([loss.measured, flags.to(loss.measured)])

    def _backpropagate(self, batch: Batch, epoch: int, step: int) -> BatchLoss:
        """The loss of a batch; its gradients are left at the parameters."""
        loss = self.loss(batch, epoch, step)
        self.optimizer.zero_grad()
        loss.total.backward()
        return loss

    @torch.no_grad()
    def _update_where(self, finite: Tensor) -> None:
        """The optimiser's step where all gradients so far were `finite`, 0-d; otherwise nothing."""
        if self._sound is None:
            for parameter in self.parameters:  # so that the first step can be undone too
                empty = torch.zeros_like(parameter)
                self.optimizer.state[parameter].setdefault("momentum_buffer", empty)
        self._sound = finite if self._sound is None else self._sound & finite
        state = [v for own in self.optimizer.state.values() for v in own.values()]
        tensors = [*self.parameters, *(v for v in state if isinstance(v, Tensor))]
        before = torch.cat([tensor.flatten() for tensor in tensors])
        self.optimizer.step()
        after = torch.cat([tensor.flatten() for tensor in tensors])
        parts = torch.where(self._sound, after, before).split([t.numel() for t in tensors])
        for tensor, part in zip(tensors, parts, strict=True):
            tensor.copy_(part.view_as(tensor))

    def _read(self) -> None:
        """Bring what is recorded of the last steps to the host, in one transfer.

        Raises:
            NotFinite: one of the losses or gradients was not.
        """
        if not self._unread:
            return
        epoch, lr = self.position.epoch + 1, self.optimizer.param_groups[0]["lr"]
        read = []
        rows = torch.stack([unread.values for unread in self._unread]).tolist()
        for (step, images, _), row in zip(self._unread, rows, strict=True):
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

    def seconds_a_step(self) -> float:
        """Seconds a step, loading included, of three that leave no trace; 0 without batches.

        The first, which warms up, is left out.
        """
        marks = []
        epoch = self.position.epoch + 1
        for loaded in itertools.islice(self.loader.batches(epoch), TIMED_STEPS):
            try:
                self._backpropagate(loaded.to(self.device), epoch, 1)
            except PromptotError:  # training will say it, with the step and the images
                break
            if self.device.type == "cuda":
                torch.cuda.synchronize()
            marks.append(time.perf_counter())
        self.loss.load_state_dict(self.position.remembered)
        return (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else 0.0

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
