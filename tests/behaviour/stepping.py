"""Steps as a GPU takes them, launched and replayed: what the tests of both share."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from matrix import TwoBatches, make_batch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.data import Batch
from promptot.graphs import GraphMaker
from promptot.recipes import OptimConfig, Recipe
from promptot.runs.learning import build_objective
from promptot.training.anchors import AnchorDraws
from promptot.training.device_step import WARM_UP, DeviceStep
from promptot.training.loss import scale_of
from promptot.training.optimizers import build_optimizer
from promptot.training.train_student import StudentLoss

STEPS = WARM_UP + 6


def refuse(reason: str) -> None:
    raise AssertionError(reason)


def build(
    model: Student,
    recipe: Recipe,
    maker: GraphMaker | None,
    tell: Callable[[str], None] = refuse,
) -> DeviceStep:
    vocabulary = len(model.vocabulary)
    anchors = AnchorDraws(vocabulary, recipe.vocabulary.per_step, 1) if vocabulary else None
    loss = StudentLoss(model, build_objective(recipe, steps=STEPS), anchors)
    parameters = [*model.prompts.parameters()]
    optimizer = build_optimizer(parameters, OptimConfig(lr=0.01), deferred=True)
    scale = scale_of(model.backbone.precision)
    return DeviceStep(parameters, loss, optimizer, maker, tell, scale)


def batches(side: int = 16) -> Iterator[Batch]:
    """The halves of one batch by turns, the second time with other pictures."""
    loader, other = TwoBatches(side=side), make_batch(8, side=side)
    for epoch in range(STEPS // 2 + 1):
        for batch in loader.batches(epoch):
            yield batch._replace(images=batch.images + 0.1 * epoch * other.images[4:])


def take(step: DeviceStep, side: int = 16) -> tuple[list[Tensor], list[Tensor]]:
    """All records, and the parameters at the end."""
    records = []
    for number, batch in zip(range(STEPS), batches(side), strict=False):
        records.append(step(batch, step.loss.draw(1, number + 1)).clone())
    return records, [p.detach().clone() for p in step.parameters]
