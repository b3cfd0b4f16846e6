"""The training loop: prompts learn, the backbone does not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from promptot.errors import PromptotError
from promptot.model import PromptedModel
from promptot.objectives.objective import Objective, ObjectiveResult
from promptot.recipes.schema import OptimConfig
from promptot.tasks.dataset import ImageTask
from promptot.tasks.loader import Batch
from promptot.training.anchors import AnchorDraws
from promptot.training.averaging import WeightAverage
from promptot.training.checkpoint import read_checkpoint, restore, save_checkpoint
from promptot.training.estimate import Estimate, check_memory
from promptot.training.records import EpochRecord, Log, StepRecord
from promptot.training.schedule import learning_rate


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
    on_views: Callable[[int, int, int], None] | None = None  # views, images, bytes kept of them
    on_estimate: Callable[[Estimate], None] | None = None
    on_start: Callable[[int, int], None] | None = None  # epochs done, epochs in all
    on_step: Callable[[StepRecord], None] | None = None
    on_epoch: Callable[[EpochRecord], None] | None = None


def train(
    model: PromptedModel,
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
        checkpoint: file to write after every epoch; if it exists, training goes on from it.
        run: what identifies the run, kept in the checkpoint.
        callbacks: who is told how it goes. An estimate costs three trial steps, which change
            nothing.

    Raises:
        PromptotError: there is not enough memory, the loss is not finite, or an epoch has no batch.
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
    start, last = 0, epochs or config.epochs
    if checkpoint is not None and checkpoint.is_file():
        state = read_checkpoint(checkpoint)
        restore(state, prompts, optimizer)
        objective.load_state_dict(state.objective)
        if averaging is not None:
            averaging.load_state_dict(state.average, model.backbone.device)
        start = state.epoch
        log.restore(start)

    def backpropagate(batch: Batch, epoch: int, step: int) -> tuple[ObjectiveResult, Batch]:
        batch = batch.to(model.backbone.device)
        words = None if anchors is None else anchors.positions(epoch, step)
        student, teacher = model(batch.images, batch.teacher, words)
        result = objective(student, teacher, batch.labels, model.backbone.logit_scale)
        optimizer.zero_grad()
        result.total.backward()
        return result, batch

    memory, available = check_memory(model, config.batch_size, anchors.count if anchors else 0)
    if callbacks.on_estimate is not None:
        remembered = objective.state_dict()
        seconds = _trial(loader.batches(start + 1), lambda b: backpropagate(b, start + 1, 1))
        objective.load_state_dict(remembered)
        callbacks.on_estimate(Estimate(seconds, len(loader), memory, available))
    if callbacks.on_start is not None:
        callbacks.on_start(start, last)

    for epoch in range(start + 1, last + 1):
        began = time.perf_counter()
        lr = learning_rate(epoch, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        steps: list[StepRecord] = []
        for loaded in loader.batches(epoch):
            step = len(steps) + 1
            try:
                result, batch = backpropagate(loaded, epoch, step)
            except PromptotError as error:
                where = f"Epoch {epoch}, step {step}: {error.problem}"
                raise PromptotError(where, fix=error.fix) from error
            optimizer.step()
            accuracy = (result.logits.argmax(dim=1) == batch.labels).float().mean()
            steps.append(_record(epoch, step, lr, result, accuracy))
            del result  # and with it what backward kept, before the next step makes its own
            if callbacks.on_step is not None:
                callbacks.on_step(steps[-1])
        if not steps:
            raise PromptotError(
                f"Epoch {epoch} has no batch: none of its images could be read, or there are "
                "fewer than the batch size.",
                fix=f"Check the images, lower optim.batch_size (now {config.batch_size}) or set "
                "optim.drop_last=false.",
            )
        record = log.add_epoch(steps, time.perf_counter() - began)
        if averaging is not None:
            averaging.add(epoch, prompts)
        if checkpoint is not None:
            average = averaging.state_dict() if averaging is not None else {}
            remembered = objective.state_dict()
            save_checkpoint(checkpoint, epoch, run or {}, prompts, optimizer, average, remembered)
        if callbacks.on_epoch is not None:
            callbacks.on_epoch(record)
    if averaging is not None:
        averaging.copy_to(prompts)


def _trial(batches: Iterator[Batch], step: Callable[[Batch], object], repeats: int = 2) -> float:
    """Seconds a step, loading included, the first (which warms up) left out; 0 without batches."""
    marks = []
    for batch, _ in zip(batches, range(repeats + 1), strict=False):
        result = step(batch)
        del result
        if batch.images.is_cuda:
            torch.cuda.synchronize()
        marks.append(time.perf_counter())
    return (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else 0.0


def _record(
    epoch: int, step: int, lr: float, result: ObjectiveResult, accuracy: Tensor
) -> StepRecord:
    """Bring a step's numbers to the host in one transfer."""
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
    )
    missing = torch.full_like(result.total, math.nan)
    present = [missing if value is None else value.detach().float() for value in tensors]
    values = torch.stack(present).tolist()
    if not math.isfinite(values[0]):
        raise PromptotError(
            f"The loss is not finite in epoch {epoch}, step {step} "
            f"(cross-entropy {values[1]:g}, preservation {values[2]:g}).",
            fix="Lower optim.lr or objective.strength; the last checkpoint is intact.",
        )
    return StepRecord(epoch, step, lr, *values)
