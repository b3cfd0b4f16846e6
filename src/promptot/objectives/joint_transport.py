"""Transport between the joint image-and-text features of the prompted and the frozen model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult
from promptot.transport import (
    TransportPlan,
    TransportProblem,
    sinkhorn_divergence,
    solve_exact,
    squared_euclidean,
)
from promptot.transport.numeric import require_positive


@dataclass(frozen=True)
class JointTransport:
    """The Prompt-OT term: least cost of moving the student's batch onto the teacher's.

    Student rows a_i = [ṽ(x_i) ; t̃(y_i)], teacher rows b_j = [v(x_j) ; t(y_j)] on the same images,
    uniform marginals 1/B, cost C_ij = η ‖a_i − b_j‖², value Σ_ij π_ij C_ij. The plan is constant
    in the backward pass; with the exact solver that gives the exact gradient (envelope theorem),
    with `solve_sinkhorn` that of the regularised value.

    Args:
        eta: η, factor on the squared distance.
        solver: from a problem to a plan: `solve_exact`, or `solve_sinkhorn` with its options
            bound by `functools.partial`.

    Example:
        >>> import torch
        >>> eye = torch.eye(3)
        >>> teacher = Features(image=eye, text=eye)
        >>> student = Features(image=0.9 * eye, text=eye)
        >>> result = JointTransport()(student, teacher, labels=torch.arange(3))
        >>> result.value, result.off_diagonal_mass  # ½ · 0.1² each
        (tensor(0.0050), tensor(0.))
    """

    eta: float = 0.5
    solver: Callable[[TransportProblem], TransportPlan] = solve_exact

    def __post_init__(self) -> None:
        require_positive(eta=self.eta)

    def __call__(self, student: Features, teacher: Features, labels: Tensor) -> PreservationResult:
        """See `Preservation`.

        Raises:
            PromptotError: a feature is NaN or infinite.
        """
        cost = squared_euclidean(
            student.joint_rows(labels), teacher.joint_rows(labels), scale=self.eta
        )  # [B, B]
        result = self.solver(TransportProblem(cost))
        return _with_diagnostics(result.value, result)


@dataclass(frozen=True)
class JointSinkhornDivergence:
    """The same rows and cost under the debiased Sinkhorn divergence.

    Unlike an exact plan on small drift, its plan is soft at any drift, so that every instance
    interacts with its neighbours; unlike a plain entropic plan, it is zero at the teacher.

    Args:
        eta: η, factor on the squared distance.
        epsilon: ε in units of the batch's mean cost.
        max_iterations, tolerance: see `sinkhorn_divergence`.
    """

    eta: float = 0.5
    epsilon: float = 0.05
    max_iterations: int = 2000
    tolerance: float = 1e-4

    def __post_init__(self) -> None:
        require_positive(eta=self.eta, epsilon=self.epsilon)

    def __call__(self, student: Features, teacher: Features, labels: Tensor) -> PreservationResult:
        """See `Preservation`; the plan and its diagnostics are those of student to teacher.

        Raises:
            PromptotError: a feature is NaN or infinite.
        """
        result = sinkhorn_divergence(
            student.joint_rows(labels),
            teacher.joint_rows(labels),
            self.epsilon,
            scale=self.eta,
            max_iterations=self.max_iterations,
            tolerance=self.tolerance,
        )
        return _with_diagnostics(result.value, result.plan)


def _with_diagnostics(value: Tensor, result: TransportPlan) -> PreservationResult:
    return PreservationResult(
        value=value,
        off_diagonal_mass=result.off_diagonal_mass,
        plan_entropy=result.entropy,
        plan=result.plan,
    )
