"""The training loop: prompts learn, the backbone does not."""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from promptot.adaptation.student import Student
from promptot.data.loader import Batch
from promptot.data.task import ImageTask
from promptot.errors import NotFinite, PromptotError
from promptot.objectives.objective import Objective, ObjectiveResult
from promptot.recipes.schema import OptimConfig
from promptot.training.anchors import AnchorDraws
from promptot.training.averaging import WeightAverage
from promptot.training.checkpoint import (
    Checkpoint,
    copy_state,
    read_checkpoint,
    restore,
    save_checkpoint,
)
from promptot.training.estimate import Estimate, check_memory
from promptot.training.finite import explain_nonfinite, finite_gradients, require_finite
from promptot.training.schedule import learning_rate
from promptot.training.training_log import EpochRecord, Log, StepRecord


class Loader(Protocol):
    """Batches of images or of patch tokens, epoch by epoch."""

    def __len__(self) -> int:
        """Batches an epoch."""
        ...

    def batches(self, epoch: int) -> Iterator[Batch]:
        """The batches of one epoch, counted from 1; the same ones whenever it is asked for."""
        ...


@dataclass(frozen=True)
class Callbacks:
    """Who is told how it goes; each may be None."""

    on_task: Callable[[ImageTask], None] | None = None  # with the shots drawn
    on_warning: Callable[[str], None] | None = None  # a sentence, before training
    on_views: Callable[[int, int, int], None] | None = None  # views, images, bytes kept of them
    on_estimate: Callable[[Estimate], None] | None = None
    on_start: Callable[[int, int], None] | None = None  # epochs done, epochs in all
    on_step: Callable[[StepRecord], None] | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None


SAVE_SECONDS = 300.0
"""Longest time between two checkpoints, but for the step that is at work."""


def train(
    model: Student,
    objective: Objective,
    loader: Loader,
    config: OptimConfig,
    log: Log,
    *,
    epochs: int | None = None,
    averaging: WeightAverage | None = None,
    anchors: AnchorDraws | None = None,
    checkpoint: Path | None = None,
    run: dict[str, Any] | None = None,
    images: Sequence[str] = (),
    save_seconds: float = SAVE_SECONDS,
    callbacks: Callbacks = Callbacks(),
) -> None:
    """Train the prompts of `model` in place.

    Args:
        model: on the device to use; its prompts must exist.
        objective: what is minimised; what it remembers of earlier steps is part of a checkpoint.
        loader: gives the batches.
        config: optimiser and schedule.
        log: where each epoch's records go.
        epochs: stop after this many, of the `config.epochs` that the schedule spans.
        averaging: what the prompts of the model become at the end; None leaves them as the last
            step did. Training goes on from the unaveraged ones, and checkpoints hold both.
        anchors: which words of the model's vocabulary each step compares; None for none.
        checkpoint: file to write after every epoch, within long ones too, and when the process is
            told to stop (`KeyboardInterrupt`, `SystemExit`); if it exists, training goes on from
            it, to the bit as if it had never stopped.
        run: what identifies the run, kept in the checkpoint.
        images: the name of each image, by its index, for messages.
        save_seconds: how long an epoch may go on before a checkpoint is written within it.
        callbacks: who is told how it goes. An estimate costs three trial steps, which change
            nothing.

    Raises:
        NotFinite: a loss or a gradient is not finite, and `config` does not skip such batches.
        PromptotError: there is not enough memory, an epoch has no batch, or the checkpoint is
            damaged or of another run.
    """
    prompts = model.prompts
    if prompts is None:
        raise ValueError("the model has no prompts to train")
    optimizer = torch.optim.SGD(
        prompts.parameters(),
        lr=config.lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
    )
    last = epochs or config.epochs
    kept: Checkpoint | None = None
    if checkpoint is not None and checkpoint.is_file():
        kept = read_checkpoint(checkpoint)
        if kept.epoch > last or (kept.epoch == last and kept.step):
            raise PromptotError(
                f"The checkpoint '{checkpoint}' is of epoch {kept.epoch} of {last}.",
                fix="Resume with the recipe of the run, or start again with --overwrite.",
            )
        restore(kept, prompts, optimizer)
        objective.load_state_dict(kept.objective)
        if averaging is not None and kept.epoch:
            averaging.load_state_dict(kept.average, model.backbone.device)
        log.restore(kept.epoch)

    def backpropagate(batch: Batch, epoch: int, step: int) -> tuple[ObjectiveResult, Batch]:
        batch = batch.to(model.backbone.device)
        words = None if anchors is None else anchors.positions(epoch, step)
        student, teacher = model(batch.images, batch.teacher, words)
        result = objective(student, teacher, batch.labels, model.backbone.logit_scale)
        optimizer.zero_grad()
        result.total.backward()
        return result, batch

    def advance(batch: Batch, epoch: int, step: int) -> StepRecord | None:
        """One step; None if it was left out."""
        remembered = objective.state_dict()
        try:
            result, batch = backpropagate(batch, epoch, step)
            record = _record(epoch, step, lr, result, batch, prompts)
        except NotFinite as error:
            if config.on_nonfinite == "skip":
                objective.load_state_dict(remembered)
                return None
            raise explain_nonfinite(error, epoch, step, batch, prompts, images) from error
        except PromptotError as error:
            where = f"Epoch {epoch}, step {step}: {error.problem}"
            raise PromptotError(where, fix=error.fix) from error
        optimizer.step()
        return record

    def state(epoch: int, step: int, steps: Sequence[StepRecord], skipped: int) -> Checkpoint:
        """What the run could go on from now."""
        values, momentum = copy_state(prompts, optimizer)
        average = averaging.state_dict() if averaging is not None else {}
        remembered = objective.state_dict()
        identity = run or {}
        return Checkpoint(
            epoch, step, skipped, identity, values, momentum, average, remembered, steps
        )

    start = kept.epoch if kept is not None else 0
    memory, available = check_memory(model, config.batch_size, anchors.count if anchors else 0)
    if callbacks.on_estimate is not None:
        remembered = objective.state_dict()
        seconds = _trial(loader.batches(start + 1), lambda b: backpropagate(b, start + 1, 1))
        objective.load_state_dict(remembered)
        callbacks.on_estimate(Estimate(seconds, len(loader), memory, available))
    if callbacks.on_start is not None:
        callbacks.on_start(start, last)

    reached: Checkpoint | None = None  # and not yet written
    written = time.monotonic()
    try:
        for epoch in range(start + 1, last + 1):
            began = time.perf_counter()
            lr = learning_rate(epoch, config)
            for group in optimizer.param_groups:
                group["lr"] = lr
            within = kept if kept is not None and kept.epoch == epoch - 1 else None
            done, skipped = (within.step, within.skipped) if within is not None else (0, 0)
            steps = list(within.records) if within is not None else []
            batches = loader.batches(epoch)
            for loaded in itertools.islice(batches, done, None):
                record = advance(loaded, epoch, done + 1)
                done += 1
                if record is None:
                    skipped += 1
                else:
                    steps.append(record)
                if checkpoint is not None:
                    reached = state(epoch - 1, done, steps, skipped)
                    if time.monotonic() - written >= save_seconds:
                        save_checkpoint(checkpoint, reached)
                        written, reached = time.monotonic(), None
                if record is not None and callbacks.on_step is not None:
                    callbacks.on_step(record)
            if not steps:
                raise _empty_epoch(epoch, config.batch_size, skipped)
            if averaging is not None:
                averaging.add(epoch, prompts)
            summary = log.add_epoch(steps, time.perf_counter() - began, skipped)
            if checkpoint is not None:
                reached = state(epoch, 0, (), 0)
                save_checkpoint(checkpoint, reached)
                written, reached = time.monotonic(), None
            if callbacks.on_epoch is not None:
                callbacks.on_epoch(summary)
    except (KeyboardInterrupt, SystemExit):
        if checkpoint is not None and reached is not None:
            with contextlib.suppress(NotFinite):
                save_checkpoint(checkpoint, reached)
        raise
    if averaging is not None:
        averaging.copy_to(prompts)
    require_finite(prompts)


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


def _trial(batches: Iterator[Batch], step: Callable[[Batch], object], repeats: int = 2) -> float:
    """Seconds a step, loading included, the first (which warms up) left out; 0 without batches."""
    marks = []
    for batch, _ in zip(batches, range(repeats + 1), strict=False):
        try:
            result = step(batch)
        except PromptotError:  # training will say it, with the step and the images
            break
        del result
        if batch.images.is_cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    return (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else 0.0


def _record(
    epoch: int, step: int, lr: float, result: ObjectiveResult, batch: Batch, prompts: nn.Module
) -> StepRecord:
    """Bring a step's numbers to the host in one transfer.

    Raises:
        NotFinite: the loss or a gradient is not.
    """
    accuracy = (result.logits.argmax(dim=1) == batch.labels).float().mean()
    tensors = (
        result.total,
        result.cross_entropy,
        result.preservation,
        result.off_diagonal_mass,
        result.plan_entropy,
        result.image_drift,
        result.text_drift,
        accuracy,
        result.strength,
        result.vocabulary,
        result.vocabulary_off_diagonal_mass,
        result.vocabulary_plan_entropy,
        finite_gradients(prompts),
    )
    missing = torch.full_like(result.total, math.nan)
    present = [missing if value is None else value.detach().float() for value in tensors]
    *values, finite = torch.stack(present).tolist()
    if not math.isfinite(values[0]):
        raise NotFinite(
            f"The loss is not finite (cross-entropy {values[1]:g}, preservation {values[2]:g})."
        )
    if not finite:
        raise NotFinite(f"The gradient is not finite, though the loss is ({values[0]:g}).")
    return StepRecord(epoch, step, lr, *values)
