"""The training loop: prompts learn, the backbone does not."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot.errors import PromptotError
from promptot.model import PromptedModel
from promptot.objectives.objective import Objective, ObjectiveResult
from promptot.recipes.schema import OptimConfig
from promptot.tasks.loader import Batch
from promptot.training.checkpoint import read_checkpoint, restore, save_checkpoint
from promptot.training.records import EpochRecord, Log, StepRecord
from promptot.training.schedule import learning_rate

Batches = Callable[[int], Iterable[Batch]]


def train(
    model: PromptedModel,
    objective: Objective,
    batches: Batches,
    config: OptimConfig,
    log: Log,
    *,
    epochs: int | None = None,
    checkpoint: Path | None = None,
    run: dict[str, Any] | None = None,
    on_start: Callable[[int, int], None] | None = None,
    on_step: Callable[[StepRecord], None] | None = None,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> None:
    """Train the prompts of `model` in place.

    Args:
        model: on the device to use; its prompts must exist.
        objective: what is minimised.
        batches: gives an epoch's batches (images or patch tokens, labels) for its number, from 1.
        config: optimiser and schedule.
        log: where each epoch's records go.
        epochs: stop after this many, of the `config.epochs` that the schedule spans.
        checkpoint: file to write after every epoch; if it exists, training goes on from it.
        run: what identifies the run, kept in the checkpoint.
        on_start: called with the epochs already done and the epochs in all.
        on_step, on_epoch: called with each record.

    Raises:
        PromptotError: the loss is not finite, or an epoch has no batch.
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
    start = 0
    if checkpoint is not None and checkpoint.is_file():
        state = read_checkpoint(checkpoint)
        restore(state, prompts, optimizer)
        start = state.epoch
        log.restore(start)

    last = epochs or config.epochs
    if on_start is not None:
        on_start(start, last)
    for epoch in range(start + 1, last + 1):
        began = time.perf_counter()
        lr = learning_rate(epoch, config)
        for group in optimizer.param_groups:
            group["lr"] = lr
        steps: list[StepRecord] = []
        for batch in batches(epoch):
            batch = batch.to(model.backbone.device)
            student, teacher = model(batch.images, batch.teacher)
            result = objective(student, teacher, batch.labels, model.backbone.logit_scale)
            optimizer.zero_grad()
            result.total.backward()
            optimizer.step()
            accuracy = (result.logits.argmax(dim=1) == batch.labels).float().mean()
            steps.append(_record(epoch, len(steps) + 1, lr, result, accuracy))
            if on_step is not None:
                on_step(steps[-1])
        if not steps:
            raise PromptotError(
                f"Epoch {epoch} has no batch: there are fewer images than the batch size.",
                fix=f"Lower optim.batch_size (now {config.batch_size}) or set "
                "optim.drop_last=false.",
            )
        record = log.add_epoch(steps, time.perf_counter() - began)
        if checkpoint is not None:
            save_checkpoint(checkpoint, epoch, run or {}, prompts, optimizer)
        if on_epoch is not None:
            on_epoch(record)


def _record(
    epoch: int, step: int, lr: float, result: ObjectiveResult, accuracy: Tensor
) -> StepRecord:
    """Bring a step's numbers to the host in one transfer."""
    missing = torch.full_like(result.total, math.nan)
    tensors = (
        result.total,
        result.cross_entropy,
        result.preservation,
        missing if result.off_diagonal_mass is None else result.off_diagonal_mass,
        missing if result.plan_entropy is None else result.plan_entropy,
        result.image_drift,
        result.text_drift,
        accuracy,
    )
    values = torch.stack([value.detach().float() for value in tensors]).tolist()
    if not math.isfinite(values[0]):
        raise PromptotError(
            f"The loss is not finite in epoch {epoch}, step {step} "
            f"(cross-entropy {values[1]:g}, preservation {values[2]:g}).",
            fix="Lower optim.lr or objective.strength; the last checkpoint is intact.",
        )
    return StepRecord(epoch, step, lr, *values)
