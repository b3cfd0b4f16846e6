"""The debiased Sinkhorn divergence between two point sets."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from promptot.transport.cost import result_dtype, wide_squared_euclidean
from promptot.transport.numeric import require_positive
from promptot.transport.plan import TransportPlan
from promptot.transport.precision import ScaledPotentials, narrow, warn_unless_converged
from promptot.transport.problem import TransportProblem
from promptot.transport.sinkhorn import (
    absolute_epsilon,
    alternate,
    alternate_with_itself,
    solve_balanced,
)
from promptot.transport.support import find_support


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

    def solve(problem: TransportProblem, absolute: Tensor, start: Tensor | None) -> TransportPlan:
        def iterate(kernel: Tensor, a: Tensor, b: Tensor) -> ScaledPotentials:
            if start is None:
                return alternate_with_itself(
                    kernel, a, max_iterations=max_iterations, tolerance=tolerance
                )
            return alternate(
                kernel,
                a,
                b,
                start=start.to(kernel.dtype),
                max_iterations=max_iterations,
                tolerance=tolerance,
            )

        first = result_dtype(x, y)
        return solve_balanced(problem, absolute, iterate, tolerance=tolerance, first=first)

    weights = source_weights, target_weights
    result = debiased(x, y, epsilon, relative, scale, weights, solve)
    plans = result.plan, result.source_plan, result.target_plan
    warn_unless_converged("Sinkhorn", tolerance, *plans)
    return result


def debiased(
    x: Tensor,
    y: Tensor,
    epsilon: float,
    relative: bool,
    scale: float,
    weights: tuple[Tensor | None, Tensor | None],
    solve: Callable[[TransportProblem, Tensor, Tensor | None], TransportPlan],
    damping: float = 1.0,
) -> SinkhornDivergence:
    """V(x, y) − ½ V(x, x) − ½ V(y, y), V the regularised value of what `solve` finds.

    The three values are nearly equal where x is close to y: costs, values and their difference are
    in fp64, and only the result is rounded.

    Args:
        x, y, epsilon, relative, scale, weights: as `sinkhorn_divergence` has them.
        solve: from a wide problem whose points all have weight, the absolute ε and the start of
            the target's scaled potential (None: the problem is that of a set with itself, and
            symmetric) to its plan.
        damping: τ of an unbalanced plan.
    """
    cost = wide_squared_euclidean(x, y, scale)
    dtype = result_dtype(x, y)
    shown = TransportProblem(cost.to(dtype), *weights)
    shown.check_finite()
    whole = TransportProblem(cost, *weights)
    absolute = absolute_epsilon(whole, epsilon, relative=relative)
    a, b = whole.marginals
    support = find_support(whole)
    cross = whole if support is None else support.restrict(whole)

    def with_itself(points: Tensor, own: Tensor) -> tuple[TransportPlan, TransportPlan]:
        """The plan of the points that have weight, and that of all, rounded."""
        square = TransportProblem(wide_squared_euclidean(points, points, scale), own, own)
        holding = find_support(square)
        part = square if holding is None else holding.restrict(square)
        found = solve(part, absolute, None)
        every = found if holding is None else holding.extend(square, found, damping)
        return found, narrow(every, TransportProblem(square.cost.to(dtype), own, own))

    source, source_plan = with_itself(x, a)
    target, target_plan = with_itself(y, b)
    assert target.potentials is not None
    # Where x is close to y this is close to the solution; where x = y it is the solution.
    plan = solve(cross, absolute, target.potentials[1] / absolute)
    itself = source.regularised_value + target.regularised_value
    value = (plan.regularised_value - itself / 2).to(dtype)
    every = plan if support is None else support.extend(whole, plan, damping)
    return SinkhornDivergence(value, narrow(every, shown), source_plan, target_plan)
