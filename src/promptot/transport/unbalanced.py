"""Unbalanced entropic plans: leaving the marginals costs something instead of being forbidden."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from promptot.transport.cost import result_dtype
from promptot.transport.divergence import SinkhornDivergence, debiased
from promptot.transport.numeric import require_positive
from promptot.transport.plan import TransportPlan
from promptot.transport.precision import (
    Evaluated,
    Iterate,
    ScaledPotentials,
    narrow,
    solve_in_enough_precision,
    warn_unless_converged,
    widen,
)
from promptot.transport.problem import TransportProblem
from promptot.transport.sinkhorn import absolute_epsilon, is_look
from promptot.transport.support import find_support


def solve_unbalanced(
    problem: TransportProblem,
    epsilon: float = 0.05,
    marginal_penalty: float = 1.0,
    *,
    relative: bool = True,
    max_iterations: int = 2000,
    tolerance: float = 1e-4,
) -> TransportPlan:
    """The plan that minimises V = Σ π_ij C_ij + ε KL(π ‖ a ⊗ b) + ρ (KL(π1 ‖ a) + KL(πᵀ1 ‖ b)).

    KL(p ‖ q) = Σ p log(p / q) − p + q (Chizat et al., 2018, "Scaling algorithms for unbalanced
    optimal transport problems"; Frogner et al., 2015, "Learning with a Wasserstein loss"); the
    iteration runs in the log domain.

    Mass that would have to go further than about 2ρ is not moved but destroyed, so that single far
    points don't force the others. A large ρ gives `solve_sinkhorn`.

    Gradient: the plan is constant. d/dC = π is the exact gradient of V, the `regularised_value`, at
    fixed ε and ρ (envelope theorem: V is a minimum of functions that are linear in C), and `value`,
    Σ π_ij C_ij, carries that same one. Neither is smallest where the two point sets are equal, for
    the entropy spreads the plan, as in balanced transport: use `unbalanced_divergence` as a loss.

    Args:
        problem: cost [N, M] and marginals; zero weights are allowed.
        epsilon: strength ε of the entropy, above zero: in units of the mean cost if `relative`,
            else in units of the cost.
        marginal_penalty: ρ, above zero, in the same units.
        relative: multiply `epsilon` and `marginal_penalty` by the mean cost Σ a_i b_j C_ij.
        max_iterations: stop after this many updates of both potentials.
        tolerance: stop when the L1 error of the condition π1 = a · exp(−f / ρ), and that of the
            columns, is at most this. Where that takes more digits than fp32 has, fp64 is used.

    Returns:
        The plan with `potentials` (f, g), π_ij = a_i b_j exp((f_i + g_j − C_ij) / ε), the absolute
        `epsilon`, `converged` and `iterations`. `marginal_error` is how far the penalty let the
        plan go from the marginals, not an error of the solver.

    Raises:
        PromptotError: a cost is NaN or infinite, or an option is not positive.

    Warns:
        ConvergenceWarning: the tolerance was not reached.

    Example:
        >>> cost = torch.tensor([[0.0, 9.0], [9.0, 9.0]])  # the second pair is far apart
        >>> problem = TransportProblem(cost)
        >>> solve_unbalanced(problem, 0.1, 1.0, relative=False).plan.round(decimals=3)
        tensor([[0.4840, 0.0000],
                [0.0000, 0.0070]])
    """
    require_positive(
        epsilon=epsilon,
        marginal_penalty=marginal_penalty,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    problem.check_finite()
    absolute = absolute_epsilon(problem, epsilon, relative=relative)
    stiffness = marginal_penalty / epsilon
    support = find_support(problem)
    part = problem if support is None else support.restrict(problem)
    wide = widen(part)
    start = torch.zeros_like(part.marginals[1])
    result = _solve(
        wide,
        absolute.to(wide.cost.dtype),
        lambda kernel, a, b: _alternate(
            kernel, a, b, stiffness, start.to(kernel.dtype), max_iterations, tolerance
        ),
        stiffness,
        tolerance,
        problem.cost.dtype,
    )
    result = narrow(result, part)
    warn_unless_converged("The unbalanced plan", tolerance, result)
    return result if support is None else support.extend(problem, result, _damping(stiffness))


def unbalanced_divergence(
    x: Tensor,
    y: Tensor,
    epsilon: float = 0.05,
    marginal_penalty: float = 1.0,
    *,
    relative: bool = True,
    scale: float = 0.5,
    source_weights: Tensor | None = None,
    target_weights: Tensor | None = None,
    max_iterations: int = 2000,
    tolerance: float = 1e-4,
) -> SinkhornDivergence:
    """S(x, y) = V(x, y) − ½ V(x, x) − ½ V(y, y), V the unbalanced `regularised_value` (Séjourné et
    al., 2019, "Sinkhorn divergences for unbalanced optimal transport"; their mass term is zero
    here, as both sides have mass 1).

    Zero, with zero gradient, if and only if the weighted point sets are equal, and otherwise
    positive (to within rounding). Unlike the balanced divergence it is bounded by ε + 2ρ, in units
    of the cost: points that are far from everything hardly pull, and the further the less.

    Gradient: to `x` and `y`, as `sinkhorn_divergence` has it; exact at convergence for fixed ε
    and ρ. With `relative` both follow the scale of the cost without a gradient. A population of
    one has no scale of its own: there the mean cost is the drift itself.

    Args:
        x: [N, D] source points; bf16 and fp16 are raised to fp32.
        y: [M, D] target points.
        epsilon, marginal_penalty: ε and ρ, in units of the mean cost between x and y if
            `relative`, else in units of the cost.
        relative: see above.
        scale: factor on the squared distance.
        source_weights: [N], sum 1; None means uniform.
        target_weights: [M], sum 1; None means uniform.
        max_iterations: limit for each of the three problems.
        tolerance: see `solve_unbalanced`.

    Raises:
        PromptotError: a point is NaN or infinite, or a shape or an option is wrong.

    Warns:
        ConvergenceWarning: a problem did not reach the tolerance.

    Example:
        >>> x = torch.tensor([[0.0], [1.0]])
        >>> round(abs(unbalanced_divergence(x, x).value.item()), 4)
        0.0
        >>> round(unbalanced_divergence(x, x + 2).value.item(), 4)  # balanced: 2
        1.4054
    """
    require_positive(
        epsilon=epsilon,
        marginal_penalty=marginal_penalty,
        max_iterations=max_iterations,
        tolerance=tolerance,
    )
    stiffness = marginal_penalty / epsilon

    def solve(problem: TransportProblem, absolute: Tensor, start: Tensor | None) -> TransportPlan:
        def iterate(kernel: Tensor, a: Tensor, b: Tensor) -> ScaledPotentials:
            if start is None:
                return _alternate_with_itself(kernel, a, stiffness, max_iterations, tolerance)
            given = kernel, a, b, stiffness, start.to(kernel.dtype)
            return _alternate(*given, max_iterations, tolerance)

        return _solve(problem, absolute, iterate, stiffness, tolerance, result_dtype(x, y))

    weights = source_weights, target_weights
    result = debiased(x, y, epsilon, relative, scale, weights, solve, _damping(stiffness))
    plans = result.plan, result.source_plan, result.target_plan
    warn_unless_converged("The unbalanced plan", tolerance, *plans)
    return result


def _damping(stiffness: float) -> float:
    """τ = ρ / (ρ + ε), of `stiffness` ρ/ε."""
    return stiffness / (1 + stiffness)


def _alternate(
    log_kernel: Tensor,
    source: Tensor,
    target: Tensor,
    stiffness: float,
    start: Tensor,
    max_iterations: int,
    tolerance: float,
) -> ScaledPotentials:
    """Updates u = −τ · logsumexp(…) of both sides, τ = ρ / (ρ + ε), from v = `start`.

    `log_kernel` [N, M] is −C/ε, `stiffness` k = ρ/ε. After each pair of updates a constant moves
    from v to u so that the dual value is largest; left to the updates alone, that constant would
    settle at a rate of only τ², slow for large k (Séjourné et al., 2022, "Faster unbalanced
    optimal transport: translation invariant Sinkhorn").
    """
    damping = _damping(stiffness)
    log_source, log_target = source.log(), target.log()
    rows = log_kernel + log_target  # [N, M]: what each row sums over
    columns = log_kernel + log_source[:, None]  # [N, M]
    v = start
    u = -damping * torch.logsumexp(rows + v, dim=1)
    for iteration in range(1, max_iterations + 1):
        v = -damping * torch.logsumexp(columns + u[:, None], dim=0)
        surplus = torch.logsumexp(log_source - u / stiffness, dim=0) - torch.logsumexp(
            log_target - v / stiffness, dim=0
        )
        u, v = u + stiffness / 2 * surplus, v - stiffness / 2 * surplus
        next_u = -damping * torch.logsumexp(rows + v, dim=1)
        look = is_look(iteration, max_iterations)
        if look and _row_error(source, u, next_u, stiffness) <= tolerance:
            return ScaledPotentials(u, v, iteration, True)
        u = next_u
    return ScaledPotentials(u, v, max_iterations, False)


def _alternate_with_itself(
    log_kernel: Tensor, weights: Tensor, stiffness: float, max_iterations: int, tolerance: float
) -> ScaledPotentials:
    """The same for a point set and itself: one potential, averaged updates."""
    damping = _damping(stiffness)
    columns = log_kernel + weights.log()[:, None]  # [N, N]
    u = torch.zeros_like(weights)
    for iteration in range(1, max_iterations + 1):
        next_u = -damping * torch.logsumexp(columns + u[:, None], dim=0)
        look = is_look(iteration, max_iterations)
        if look and _row_error(weights, u, next_u, stiffness) <= tolerance:
            return ScaledPotentials(u, u, iteration, True)
        u = (u + next_u) / 2
    return ScaledPotentials(u, u, max_iterations, False)


def _row_error(weights: Tensor, u: Tensor, next_u: Tensor, stiffness: float) -> float:
    """L1 distance of the row sums of the plan of (u, v) from a · exp(−f/ρ), what they should be."""
    damping = _damping(stiffness)
    wanted = weights * torch.exp(-u / stiffness)
    return float((wanted * torch.expm1((u - next_u) / damping).abs()).sum())


def _solve(
    problem: TransportProblem,
    epsilon: Tensor,
    iterate: Iterate,
    stiffness: float,
    tolerance: float,
    first: torch.dtype,
) -> TransportPlan:
    """The plan of a wide problem whose points all have weight."""
    evaluate = functools.partial(_plan, epsilon, stiffness)
    return solve_in_enough_precision(
        problem, epsilon, iterate, evaluate, tolerance=tolerance, first=first
    )


def _plan(
    epsilon: Tensor, stiffness: float, problem: TransportProblem, scaled: ScaledPotentials
) -> Evaluated:
    """The plan that potentials give, and how far its sums are from a · exp(−f/ρ), b · exp(−g/ρ)."""
    source, target = problem.marginals
    u, v = scaled.source, scaled.target
    cost = problem.cost.detach()
    plan = source[:, None] * target * torch.exp(u[:, None] + v - cost / epsilon)  # [N, M]

    def dual_value() -> Tensor:
        return epsilon * (
            1
            - plan.sum()
            - stiffness * (source * torch.expm1(-u / stiffness)).sum()
            - stiffness * (target * torch.expm1(-v / stiffness)).sum()
        )

    result = TransportPlan(
        problem=problem,
        plan=plan,
        value=(plan * problem.cost).sum(),
        potentials=(epsilon * u, epsilon * v),
        epsilon=epsilon,
        converged=scaled.converged,
        iterations=scaled.iterations,
        dual_value=dual_value,
    )
    errors = [
        (plan.sum(dim=1) - source * torch.exp(-u / stiffness)).abs().sum(),
        (plan.sum(dim=0) - target * torch.exp(-v / stiffness)).abs().sum(),
    ]
    return Evaluated(result, torch.maximum(*errors))
