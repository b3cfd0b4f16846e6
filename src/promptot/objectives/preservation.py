"""What a preservation term is: a distance of the prompted from the frozen model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from promptot.objectives.features import Features


@dataclass(frozen=True, eq=False)
class PreservationResult:
    """The term and, if transport plans were solved for, how far they are from the identity."""

    value: Tensor  # 0-d, at least fp32, differentiable in the student's features
    off_diagonal_mass: Tensor | None = None  # 0-d, share of the mass that leaves its own point
    plan_entropy: Tensor | None = None  # 0-d, from 0 (each point goes to one) to 1 (to all alike)
    plan: Tensor | None = None  # [N, N], rows student, columns teacher; None if there are several


def pooled(value: Tensor, parts: Sequence[PreservationResult]) -> PreservationResult:
    """`value` with what its parts report: the mean of their diagnostics, the plan of a single one.

    Example:
        >>> parts = [PreservationResult(torch.tensor(1.0), off_diagonal_mass=torch.tensor(m))
        ...          for m in (0.0, 0.5)]
        >>> pooled(torch.tensor(2.0), parts).off_diagonal_mass
        tensor(0.2500)
    """

    def mean(reports: list[Tensor | None]) -> Tensor | None:
        present = [report for report in reports if report is not None]
        return torch.stack(present).mean() if present else None

    return PreservationResult(
        value=value,
        off_diagonal_mass=mean([part.off_diagonal_mass for part in parts]),
        plan_entropy=mean([part.plan_entropy for part in parts]),
        plan=parts[0].plan if len(parts) == 1 else None,
    )


class Preservation(Protocol):
    """Any callable that compares the features of the two models on one batch.

    To add one, write such a callable and give it a line in `promptot.objectives.build_objective`.
    If it remembers anything from one step to the next, it is also `Stateful`.
    """

    def __call__(
        self, student: Features, teacher: Features, labels: Tensor, logit_scale: Tensor | float
    ) -> PreservationResult:
        """Distance of `student` from `teacher` on a batch with `labels` [B], long.

        The student's text may be [C, D] or [B, C, D], the teacher's is [C, D]. `logit_scale` is
        the factor on the cosine that makes logits. A backbone's logit bias is not given: it is the
        same for all classes, and no softmax sees it.
        """
        ...
