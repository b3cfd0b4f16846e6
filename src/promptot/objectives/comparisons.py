"""How two sets of rows are compared: pair by pair, or by transport between the two sets."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from promptot.objectives.preservation import PreservationResult
from promptot.transport import (
    SinkhornDivergence,
    TransportPlan,
    TransportProblem,
    sinkhorn_divergence,
    solve_exact,
    squared_euclidean,
)
from promptot.transport.numeric import at_least_float32, require_positive
from promptot.transport.outside import solve_outside
from promptot.transport.precision import widest


class Comparison(Protocol):
    """Distance of the student's rows from the teacher's, where row i of both is the same thing."""

    def __call__(self, student: Tensor, teacher: Tensor) -> PreservationResult:
        """Compare `student` [N, W] with `teacher` [N, W]; gradients go to the student.

        Raises:
            PromptotError: a row is NaN or infinite, where the comparison looks.
        """
        ...

    @property
    def on_device(self) -> bool:
        """Whether on a GPU rows are compared without a look at any value outside of graphs."""
        ...


@dataclass(frozen=True)
class Pointwise:
    """η · mean_i ‖a_i − b_i‖²: each row stays where the frozen model had it.

    This is `Transport` with the plan fixed to the identity: an upper bound of it, equal wherever
    the exact plan is the identity. There is no plan to report on.

    Args:
        eta: η, factor on the squared distance.
    """

    eta: float = 0.5

    def __post_init__(self) -> None:
        require_positive(eta=self.eta)

    def __call__(self, student: Tensor, teacher: Tensor) -> PreservationResult:
        drift = at_least_float32(student) - at_least_float32(teacher)  # [N, W]
        return PreservationResult(self.eta * drift.square().sum(dim=1).mean())

    on_device = True


@dataclass(frozen=True)
class Transport:
    """Cost of moving the student's rows onto the teacher's: Σ_ij π_ij C_ij, C_ij = η ‖a_i − b_j‖².

    Every row weighs 1/N. The plan π is constant in the backward pass. With the exact and the
    partial solver that is the exact gradient (envelope theorem), and value and gradient are zero
    at the teacher. With `solve_sinkhorn` or `solve_unbalanced` it is the gradient of the
    regularised value, which is *not* smallest at the teacher: it also pulls the rows together.
    `TransportDivergence` is free of that.

    Args:
        eta: η, factor on the squared distance.
        solver: from a problem to a plan: `solve_exact`, or another with its options bound by
            `functools.partial`.
    """

    eta: float = 0.5
    solver: Callable[[TransportProblem], TransportPlan] = solve_exact

    def __post_init__(self) -> None:
        require_positive(eta=self.eta)

    def __call__(self, student: Tensor, teacher: Tensor) -> PreservationResult:
        cost = squared_euclidean(student, teacher, scale=self.eta)  # [N, N]
        result = solve_outside(self.solver, TransportProblem(cost))
        return _with_diagnostics(result.value, result, teacher)

    on_device = True


class Divergence(Protocol):
    """From two point sets [N, W], [M, W] and a factor on the squared distance to a divergence."""

    def __call__(self, x: Tensor, y: Tensor, /, *, scale: float) -> SinkhornDivergence: ...


@dataclass(frozen=True)
class TransportDivergence:
    """The same rows and cost under a debiased divergence S(a, b) = V(a, b) − ½V(a, a) − ½V(b, b).

    Unlike an exact plan on small drift, its plan is soft at any drift, so that every row
    interacts with its neighbours; unlike a plain entropic plan, it is zero with zero gradient at
    the teacher.

    Args:
        eta: η, factor on the squared distance.
        divergence: `sinkhorn_divergence` or `unbalanced_divergence`, with its options bound by
            `functools.partial`.
    """

    eta: float = 0.5
    divergence: Divergence = sinkhorn_divergence

    def __post_init__(self) -> None:
        require_positive(eta=self.eta)

    def __call__(self, student: Tensor, teacher: Tensor) -> PreservationResult:
        """The plan and its diagnostics are those of student to teacher."""
        result = self.divergence(student, teacher, scale=self.eta)
        return _with_diagnostics(result.value, result.plan, teacher)

    on_device = False  # iterations end where the error is small enough


def _with_diagnostics(value: Tensor, result: TransportPlan, teacher: Tensor) -> PreservationResult:
    """What the plan does to *distinct* teacher rows.

    Mass that goes to a copy of its own teacher row has not moved: the same view of an image may
    stand in a queue several times, and two images of one class have the same text.
    """
    first = _first_copies(teacher.detach())  # [N]
    merged = torch.zeros_like(result.plan).index_add(1, first, result.plan)  # [N, N]
    moved = merged.scatter(1, first[:, None], 0).sum() / merged.sum()
    return PreservationResult(
        value=value,
        off_diagonal_mass=moved,
        plan_entropy=dataclasses.replace(result, plan=merged).entropy,
        plan=result.plan,
    )


def _first_copies(rows: Tensor) -> Tensor:
    """For each row of [N, W] the index of the first row that is equal to it, [N]."""
    wide = rows.to(widest(rows.dtype, rows.device))
    weights = torch.arange(rows.shape[1], dtype=wide.dtype, device=rows.device).cos()
    key = (wide * weights).sum(dim=1)  # equal rows have equal keys, and no others in practice
    return (key[:, None] == key).int().argmax(dim=1)
