"""What a preservation term is: a distance of the prompted from the frozen model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from promptot.objectives.features import Features


@dataclass(frozen=True, eq=False)
class PreservationResult:
    """The term and, if a transport plan was solved for, how far it is from the identity."""

    value: Tensor  # 0-d, at least fp32, differentiable in the student's features
    off_diagonal_mass: Tensor | None = None  # 0-d, see `TransportPlan.off_diagonal_mass`
    plan_entropy: Tensor | None = None  # 0-d, see `TransportPlan.entropy`
    plan: Tensor | None = None  # [B, B], rows student, columns teacher


class Preservation(Protocol):
    """Any callable that compares the features of the two models on one batch.

    To add one, write such a callable and give it a line in `promptot.objectives.build`.
    """

    def __call__(self, student: Features, teacher: Features, labels: Tensor) -> PreservationResult:
        """Distance of `student` from `teacher` on a batch with `labels` [B], long."""
        ...
