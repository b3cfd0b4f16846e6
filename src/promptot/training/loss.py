"""What a trainer minimises."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from torch import Tensor

from promptot.data.loader import Batch
from promptot.objectives.objective_state import Stateful


class Guide(NamedTuple):
    """A second loss, against which the first one is not to be lowered."""

    value: Tensor  # 0-d, differentiable
    strength: Tensor  # λ, 0-d: how much of a conflict is taken out; 1 takes all


class BatchLoss(NamedTuple):
    """The loss of a batch, and what a log says of it."""

    total: Tensor  # 0-d, differentiable
    measured: Tensor  # the values that `MEASURED` names, detached, [F]
    guide: Guide | None = None


class Loss(Stateful, Protocol):
    """The loss of a batch; its state is what it remembers of earlier ones."""

    def draw(self, epoch: int, step: int) -> Tensor | None:
        """What one step of one epoch draws at random, both counted from 1; None for nothing.

        A function of the two alone, on the host, of the same shape each time.
        """
        ...

    def __call__(self, batch: Batch, drawn: Tensor | None = None) -> BatchLoss:
        """The loss of a batch, with what was drawn for its step; both on the device."""
        ...


def scale_of(precision: str) -> float:
    """What to multiply the loss by, so that gradients fit into the matrices' precision.

    In fp16 gradients of the features are about s / B at most, some dozens, and those of blocks are
    small: 128 keeps both far from its limits. A power of two changes no digit of the others.
    """
    return 128.0 if precision == "fp16" else 1.0
