"""The debiased Sinkhorn divergence between two point sets."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from promptot.transport.cost import squared_euclidean
from promptot.transport.numeric import require_positive
from promptot.transport.plan import TransportPlan
from promptot.transport.problem import TransportProblem
from promptot.transport.sinkhorn import (
    absolute_epsilon,
    alternate,
    alternate_with_itself,
    entropic_plan,
)


@dataclass(frozen=True, eq=False)
class SinkhornDivergence:
    """The divergence and the three entropic plans that it is made of."""

    value: Tensor  # 0-d
    plan: TransportPlan  # x to y
    source_plan: TransportPlan  # x to itself
    target_plan: TransportPlan  # y to itself

    @property
    def converged(self) -> bool:
        """Whether all three plans reached the tolerance."""
        return self.plan.converged and self.source_plan.converged and self.target_plan.converged


def sinkhorn_divergence(
    x: Tensor,
    y: Tensor,
    epsilon: float = 0.05,
    *,
    relative: bool = True,
    scale: float = 0.5,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
    max_iterations: int = 2000,
    tolerance: float = 1e-4,
) -> SinkhornDivergence:
    """S(x, y) = OT_ε(x, y) − ½ OT_ε(x, x) − ½ OT_ε(y, y) (Feydy et al., 2019, equation 3).

    OT_ε is the regularised value with cost `scale · ‖x_i − y_j‖²`; the same ε is used in all
    three terms. S is zero if and only if the weighted point sets are equal, and otherwise
    positive (to within rounding): it does not pull the points together as OT_ε alone does.

    Gradient: to `x` and `y`, through the costs of all three terms (in OT_ε(x, x) through both
    arguments) with the plans held constant: exact at convergence, by the envelope theorem, for
    fixed ε. With `relative`, ε follows the scale of the cost without a gradient.

    Args:
        x: [N, D] source points; bf16 and fp16 are raised to fp32.
        y: [M, D] target points.
        epsilon: strength of the entropy: in units of the mean cost between x and y if
            `relative`, else in units of the cost.
        relative: see `epsilon`.
        scale: factor on the squared distance.
        source_weights: [N], sum 1; None means uniform.
        target_weights: [M], sum 1; None means uniform.
        max_iterations: limit for each of the three problems.
        tolerance: marginal error at which each of them stops.

    Raises:
        PromptotError: a point is NaN or infinite, or a shape or an option is wrong.

    Warns:
        ConvergenceWarning: a problem did not reach the tolerance.

    Example:
        >>> import torch
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> sinkhorn_divergence(x, x).value
        tensor(0.)
        >>> round(sinkhorn_divergence(x, x + 2).value.item(), 4)  # a shift by 2: ½ · 2²
        2.0
    """
    require_positive(max_iterations=max_iterations, tolerance=tolerance)
    cross = TransportProblem(squared_euclidean(x, y, scale), source_weights, target_weights)
    cross.check_finite()
    absolute = absolute_epsilon(cross, epsilon, relative=relative)
    a, b = cross.marginals

    def with_itself(points: Tensor, weights: Tensor) -> TransportPlan:
        problem = TransportProblem(squared_euclidean(points, points, scale), weights, weights)
        log_kernel = problem.cost.detach() / -absolute
        scaled = alternate_with_itself(
            log_kernel, weights, max_iterations=max_iterations, tolerance=tolerance
        )
        return entropic_plan(problem, absolute, log_kernel, scaled)

    source_plan, target_plan = with_itself(x, a), with_itself(y, b)
    assert target_plan.potentials is not None
    log_kernel = cross.cost.detach() / -absolute
    scaled = alternate(
        log_kernel,
        a,
        b,
        # Where x is close to y this is close to the solution; where x = y it is the solution.
        start=target_plan.potentials[1] / absolute,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    plan = entropic_plan(cross, absolute, log_kernel, scaled)
    itself = source_plan.regularised_value + target_plan.regularised_value
    value = plan.regularised_value - itself / 2
    return SinkhornDivergence(value, plan, source_plan, target_plan)
