"""Entropic plans: Sinkhorn's iteration in the log domain, on the device of the cost."""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

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
from promptot.transport.support import find_support

EARLY_LOOKS = (1, 2, 4, 7)  # iterations: a large epsilon is solved by a few
LOOK_EVERY = 10  # iterations between two looks at the error later on: each waits for the device
MAX_RELAXATION = 1.95  # 2 would not converge
SMALL = 96 * 96  # entries of a cost: up to here PyTorch's calls cost more than their arithmetic

Array = Any
"""A torch tensor, or a NumPy array for small problems on a CPU."""


def solve_sinkhorn(
    problem: TransportProblem,
    epsilon: float = 0.05,
    *,
    relative: bool = True,
    max_iterations: int = 2000,
    tolerance: float = 1e-4,
) -> TransportPlan:
    """The coupling that minimises Σ π_ij C_ij + ε KL(π ‖ a ⊗ b) (Cuturi, 2013), log domain.

    A small ε comes close to the exact plan and takes more iterations; a large one gives a ⊗ b.

    Gradient: the plan is constant (envelope theorem, see `TransportPlan`). d/dC = π is the exact
    gradient of `regularised_value` at fixed ε; with `relative`, ε follows the scale of the cost
    but no gradient flows through it.

    Args:
        problem: cost [N, M] and marginals; zero weights are allowed.
        epsilon: strength ε of the entropy, above zero: in units of the mean cost if `relative`,
            else in units of the cost.
        relative: multiply `epsilon` by the mean cost Σ a_i b_j C_ij.
        max_iterations: stop after this many updates of both potentials.
        tolerance: stop when the L1 error of the row marginal is at most this. The columns are
            then exact. Where that takes more digits than fp32 has (a small ε), fp64 is used.

    Returns:
        The plan with `potentials` (f, g), π_ij = a_i b_j exp((f_i + g_j − C_ij) / ε), the
        absolute `epsilon`, `converged`, `iterations` and `marginal_error`.

    Raises:
        PromptotError: a cost is NaN or infinite, or an option is not positive.

    Warns:
        ConvergenceWarning: the tolerance was not reached.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[0.0, 1.0], [1.0, 0.0]])
        >>> solve_sinkhorn(TransportProblem(cost), epsilon=0.1).plan.round(decimals=3)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.5000]])
        >>> solve_sinkhorn(TransportProblem(cost), epsilon=100.0).plan.round(decimals=3)
        tensor([[0.2520, 0.2480],
                [0.2480, 0.2520]])
    """
    require_positive(max_iterations=max_iterations, tolerance=tolerance)
    problem.check_finite()
    absolute = absolute_epsilon(problem, epsilon, relative=relative)
    support = find_support(problem)
    part = problem if support is None else support.restrict(problem)
    wide = widen(part)
    start = torch.zeros_like(part.marginals[1])

    def iterate(kernel: Tensor, a: Tensor, b: Tensor) -> ScaledPotentials:
        v = start.to(kernel.dtype)
        return alternate(kernel, a, b, start=v, max_iterations=max_iterations, tolerance=tolerance)

    result = solve_balanced(
        wide,
        absolute.to(wide.cost.dtype),
        iterate,
        tolerance=tolerance,
        first=problem.cost.dtype,
    )
    result = narrow(result, part)
    warn_unless_converged("Sinkhorn", tolerance, result)
    return result if support is None else support.extend(problem, result)


def absolute_epsilon(problem: TransportProblem, epsilon: float, *, relative: bool) -> Tensor:
    """ε in units of the cost, 0-d and constant; `relative` multiplies by the mean cost."""
    require_positive(epsilon=epsilon)
    cost = problem.cost.detach()
    if not relative:
        return cost.new_full((), epsilon)
    source, target = problem.marginals
    with torch.autocast(cost.device.type, enabled=False):
        mean_cost = source @ cost @ target
    # All points may coincide: then any ε gives the same plan, and zero would give NaN.
    return (epsilon * mean_cost).clamp_min(torch.finfo(cost.dtype).tiny)


def alternate(
    log_kernel: Tensor,
    source: Tensor,
    target: Tensor,
    *,
    start: Tensor,
    max_iterations: int,
    tolerance: float,
) -> ScaledPotentials:
    """Sinkhorn's alternating updates of u [N] and v [M], from v = `start`, over-relaxed.

    `log_kernel` [N, M] is −C/ε. A zero weight is a log weight of −∞, which logsumexp leaves out.
    The relaxation follows the observed rate of convergence, which saves about nine iterations in
    ten where plain updates are slow (Lehmann et al., 2022, "A note on overrelaxation in the
    Sinkhorn algorithm"). Updates are matrix-vector products with a kernel that has absorbed the
    potentials (Schmitzer, 2019, "Stabilized sparse scaling algorithms"), and are repeated in the
    log domain where those would not be finite.
    """
    given = (log_kernel, source, target, start)
    if log_kernel.device.type == "cpu" and log_kernel.numel() <= SMALL:
        with np.errstate(all="ignore"):  # as PyTorch: what is not finite is looked for
            u, v, iterations, converged = _relax(
                _Updates(np, *(tensor.numpy() for tensor in given)), max_iterations, tolerance
            )
        u, v = torch.from_numpy(u), torch.from_numpy(v)
    else:
        with torch.autocast(log_kernel.device.type, enabled=False):  # or products are in 16 bits
            u, v, iterations, converged = _relax(_Updates(torch, *given), max_iterations, tolerance)
    return ScaledPotentials(u, v, iterations, converged)


def _relax(
    state: _Updates, max_iterations: int, tolerance: float
) -> tuple[Array, Array, int, bool]:
    """Update until the error is small enough; u [N] and v [M], how many updates, whether it is."""
    relaxation, last_error = 1.0, math.inf
    iteration = 0
    while True:
        look = _next_look(iteration, max_iterations)
        error = state.advance(look - iteration, relaxation)
        iteration = look
        if error <= tolerance or iteration == max_iterations:
            return *state.potentials, iteration, error <= tolerance
        state.follow()
        if iteration % LOOK_EVERY == 0:
            relaxation = best_relaxation(relaxation, (error / last_error) ** (1 / LOOK_EVERY))
            last_error = error
            state.absorb()


class _Updates:
    """Updates of u [N] and v [M], held as absorbed potentials and factors on top of them.

    `library` is torch or NumPy, whose arrays the others are; only what both have is used.
    """

    left: Array  # factor exp(u) on top of `u`
    right: Array  # and of `v`

    def __init__(
        self, library: Any, log_kernel: Array, source: Array, target: Array, v: Array
    ) -> None:
        self.log_kernel, self.source, self.target = log_kernel, source, target
        self._library = library
        self.u = -library.amax(log_kernel + (library.log(target) + v), 1)
        self.v = v
        self._set_kernel()
        self.left = 1 / (self.rows @ target)  # each row sums to one or more: u starts with u(v)

    @property
    def potentials(self) -> tuple[Array, Array]:
        log = self._library.log
        return self.u + log(self.left), self.v + log(self.right)

    def absorb(self) -> None:
        """Move the factors into the potentials, which keeps the kernel's sums near one."""
        self.u, self.v = self.potentials
        self._set_kernel()

    def advance(self, steps: int, relaxation: float) -> float:
        """Update `steps` times, the last time without relaxation, and without following with u.

        Returns:
            the L1 error of the row marginal. The column marginal is exact.
        """
        left, right = self.left, self.right
        for step in range(1, steps + 1):
            power = 1.0 if step == steps else relaxation
            right = _relaxed(right, self.columns @ (self.source * left), power)
            sums = self.rows @ (self.target * right)
            if step < steps:
                left = _relaxed(left, sums, power)
        error = float(self.source @ abs(left * sums - 1))
        if math.isfinite(error):
            self.left, self.right, self._sums = left, right, sums
            return error
        return self._advance_in_log(steps, relaxation)

    def follow(self) -> None:
        """Let u answer the last v."""
        self.left = _relaxed(self.left, self._sums, 1.0)

    def _advance_in_log(self, steps: int, relaxation: float) -> float:
        tensor = torch.as_tensor  # NumPy has no logsumexp; this is rare
        u, v = map(tensor, self.potentials)
        log_kernel, source = tensor(self.log_kernel), tensor(self.source)
        rows = log_kernel + tensor(self.target).log()
        columns = log_kernel + source.log()[:, None]
        for step in range(1, steps + 1):
            power = 1.0 if step == steps else relaxation
            v = torch.lerp(v, -torch.logsumexp(columns + u[:, None], dim=0), power)
            next_u = -torch.logsumexp(rows + v, dim=1)
            if step < steps:
                u = torch.lerp(u, next_u, power)
        back = self._library.asarray
        self.u, self.v = back(u), back(v)
        self._set_kernel()
        self._sums = back(torch.exp(u - next_u))
        return _row_error(source, u, next_u)

    def _set_kernel(self) -> None:
        self.rows = self.log_kernel + self.u[:, None]
        self.rows += self.v
        self._library.exp(self.rows, out=self.rows)
        self.columns = self.rows.T
        self.left = self._library.ones_like(self.u)
        self.right = self._library.ones_like(self.v)


def _relaxed(factor: Array, sums: Array, power: float) -> Array:
    """The factor that makes `sums` one, over-relaxed."""
    return 1 / sums if power == 1 else factor ** (1 - power) * sums**-power


def alternate_with_itself(
    log_kernel: Tensor, weights: Tensor, *, max_iterations: int, tolerance: float
) -> ScaledPotentials:
    """The same for a point set and itself: one potential, averaged updates, few iterations.

    `log_kernel` [N, N] is symmetric (Feydy et al., 2019, section 3.1).
    """
    columns = log_kernel + weights.log()[:, None]  # [N, N]
    u = torch.zeros_like(weights)
    for iteration in range(1, max_iterations + 1):
        next_u = -torch.logsumexp(columns + u[:, None], dim=0)
        look = is_look(iteration, max_iterations)
        if look and _row_error(weights, u, next_u) <= tolerance:
            return ScaledPotentials(u, u, iteration, True)
        u = (u + next_u) / 2
    return ScaledPotentials(u, u, max_iterations, False)


def solve_balanced(
    problem: TransportProblem,
    epsilon: Tensor,
    iterate: Iterate,
    *,
    tolerance: float,
    first: torch.dtype,
) -> TransportPlan:
    """The balanced plan of a wide problem whose points all have weight; see
    `solve_in_enough_precision`.
    """
    evaluate = functools.partial(_entropic_plan, epsilon)
    return solve_in_enough_precision(
        problem, epsilon, iterate, evaluate, tolerance=tolerance, first=first
    )


def _entropic_plan(
    epsilon: Tensor, problem: TransportProblem, scaled: ScaledPotentials
) -> Evaluated:
    """The plan, its value and the dual value that belong to scaled potentials."""
    source, target = problem.marginals
    plan = problem.cost.detach() / -epsilon + (scaled.source + source.log())[:, None]
    plan.add_(scaled.target + target.log()).exp_()

    def dual_value() -> Tensor:
        of_source, of_target = (source * scaled.source).sum(), (target * scaled.target).sum()
        return epsilon * (of_source + of_target - plan.sum() + 1)

    result = TransportPlan(
        problem=problem,
        plan=plan,
        value=(plan * problem.cost).sum(),
        potentials=(epsilon * scaled.source, epsilon * scaled.target),
        epsilon=epsilon,
        converged=scaled.converged,
        iterations=scaled.iterations,
        dual_value=dual_value,
    )
    return Evaluated(result, result.marginal_error)


def best_relaxation(relaxation: float, rate: float) -> float:
    """The relaxation ω that converges fastest, from the rate per iteration seen with the last one.

    Young's relation (rate + ω − 1)² = rate · ω² · ρ gives the rate ρ of plain updates; the best ω
    is then 2 / (1 + √(1 − ρ)). Back to plain updates, ω = 1, where the error did not shrink.

    Example:
        >>> round(best_relaxation(1.0, 0.96), 3)
        1.667
    """
    if not 0 < rate < 1:
        return 1.0
    plain_rate = min((rate + relaxation - 1) ** 2 / (rate * relaxation**2), 1.0)
    return min(2 / (1 + math.sqrt(1 - plain_rate)), MAX_RELAXATION)


def is_look(iteration: int, last: int) -> bool:
    """Whether to look at the error after this iteration."""
    return iteration in EARLY_LOOKS or iteration % LOOK_EVERY == 0 or iteration == last


def _next_look(iteration: int, last: int) -> int:
    return next(later for later in range(iteration + 1, last + 1) if is_look(later, last))


def _row_error(weights: Tensor, u: Tensor, next_u: Tensor) -> float:
    """L1 error of the row marginal of the plan of (u, v), which is a · exp(u − next u)."""
    return float((weights * torch.expm1(u - next_u).abs()).sum())
