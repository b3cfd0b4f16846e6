"""A student's training: its loss beside the teacher, and the trainer that lowers it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.data.loader import Batch
from promptot.objectives.objective import Objective
from promptot.recipes.schema import OptimConfig
from promptot.training.anchors import AnchorDraws
from promptot.training.averaging import WeightAverage
from promptot.training.checkpoint import CheckpointFile
from promptot.training.estimate import Estimate, check_memory, lack_explained
from promptot.training.listener import SILENT, Listener
from promptot.training.loss import BatchLoss, Guide, scale_of
from promptot.training.step_timing import seconds_a_step
from promptot.training.trainer import Loader, Trainer
from promptot.training.training_log import MEASURED, Log


class StudentLoss:
    """What an objective says of a student beside its teacher on a batch (a `Loss`).

    Args:
        model: on the device of the batches.
        objective: what it remembers of earlier steps is the state.
        anchors: which words of the model's vocabulary each step compares; None for none.
    """

    def __init__(
        self, model: Student, objective: Objective, anchors: AnchorDraws | None = None
    ) -> None:
        self.model, self.objective, self.anchors = model, objective, anchors
        self.state_dict = objective.state_dict
        self.load_state_dict = objective.load_state_dict

    def draw(self, epoch: int, step: int) -> Tensor | None:
        """The positions of the step's anchor words, [A] long; None without anchors."""
        self.model.adaptation.draw(epoch, step)
        return None if self.anchors is None else self.anchors.positions(epoch, step)

    def __call__(self, batch: Batch, drawn: Tensor | None = None) -> BatchLoss:
        """See `Loss`; the batch has images [B, 3, R, R] or patch tokens [B, N, W]."""
        with self.model.adaptation.in_training():
            student, teacher = self.model(batch.images, batch.teacher, drawn)
        scale, bias = self.model.backbone.logit_scale, self.model.backbone.logit_bias
        result = self.objective(student, teacher, batch.labels, scale, bias)
        accuracy = (result.logits.argmax(dim=1) == batch.labels).float().mean()
        values: Mapping[str, Tensor | None] = {**vars(result), "accuracy": accuracy}
        missing = torch.full_like(accuracy, math.nan)
        measured = [
            missing if (value := values[name]) is None else value.detach().float()
            for name in MEASURED
        ]
        guide = Guide(result.preservation, result.strength)
        projected = self.objective.combine == "project"
        return BatchLoss(result.total, torch.stack(measured), guide if projected else None)


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
    checkpoint: CheckpointFile | None = None,
    images: Sequence[str] = (),
    listener: Listener = SILENT,
) -> None:
    """Train the prompts of `model` in place; see `Trainer` for the arguments.

    Args:
        model: on the device to use; its prompts must exist.
        objective: what is minimised.
        anchors: see `StudentLoss`.

    Raises:
        NotFinite: a loss or a gradient is not finite, and `config` does not skip such batches.
        PromptotError: there is not enough memory, an epoch has no batch, or the checkpoint is
            damaged or of another run.
    """
    if model.prompts is None:
        raise ValueError("the model has no prompts to train")
    trainer = Trainer(
        model.prompts,
        StudentLoss(model, objective, anchors),
        loader,
        config,
        log,
        epochs=epochs,
        averaging=averaging,
        checkpoint=checkpoint,
        images=images,
        listener=listener,
        loss_scale=scale_of(model.backbone.precision),
    )
    trainer.setup()
    memory, available = check_memory(model, config.batch_size, anchors.count if anchors else 0)
    with lack_explained():
        if listener.hears("on_estimate"):
            seconds = seconds_a_step(trainer)
            listener.on_estimate(Estimate(seconds, len(loader), memory, available))
        trainer.run()
