"""Entropic iterations in fp32 where that is enough, in fp64 where it is not."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from promptot.transport.plan import ConvergenceWarning, TransportPlan
from promptot.transport.problem import TransportProblem

ROUNDING = 64 * torch.finfo(torch.float64).eps


class ScaledPotentials(NamedTuple):
    """Dual potentials divided by ε, and how the iteration ended."""

    source: Tensor  # u = f/ε [N]
    target: Tensor  # v = g/ε [M]
    iterations: int
    converged: bool


class Evaluated(NamedTuple):
    """The plan that potentials give, and its error in the condition that the solver is after."""

    plan: TransportPlan
    error: Tensor  # 0-d


Iterate = Callable[[Tensor, Tensor, Tensor], ScaledPotentials]
"""From −C/ε [N, M] and the marginals to potentials, in the precision of its arguments."""

Evaluate = Callable[[TransportProblem, ScaledPotentials], Evaluated]


def widest(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """fp64, or on Apple GPUs, which have none, `dtype`."""
    return dtype if device.type == "mps" else torch.float64


def widen(problem: TransportProblem) -> TransportProblem:
    """The problem in fp64 where the device has it; its cost keeps its gradient."""
    dtype = widest(problem.cost.dtype, problem.cost.device)
    if problem.cost.dtype == dtype:
        return problem
    weights = (w if w is None else w.to(dtype) for w in _given(problem))
    return TransportProblem(problem.cost.to(dtype), *weights)


def narrow(plan: TransportPlan, problem: TransportProblem) -> TransportPlan:
    """The plan in the precision of `problem`, which is the plan's own but for rounding."""
    dtype = problem.cost.dtype
    if plan.plan.dtype == dtype:
        return plan
    dual = plan.dual_value
    assert plan.potentials is not None
    assert plan.epsilon is not None
    f, g = plan.potentials
    return dataclasses.replace(
        plan,
        problem=problem,
        plan=plan.plan.to(dtype),
        value=plan.value.to(dtype),
        potentials=(f.to(dtype), g.to(dtype)),
        epsilon=plan.epsilon.to(dtype),
        dual_value=None if dual is None else lambda: dual().to(dtype),
    )


def solve_in_enough_precision(
    problem: TransportProblem,
    epsilon: Tensor,
    iterate: Iterate,
    evaluate: Evaluate,
    *,
    tolerance: float,
    first: torch.dtype,
) -> TransportPlan:
    """Iterate in the precision `first`; again in that of `problem` if rounding spoils the plan.

    An iteration knows its error before its potentials are rounded, and u + v − C/ε loses the digits
    that C/ε has before the point: of a small ε hardly any are left in fp32. So the error that
    counts is that of the plan which is returned.

    Args:
        problem: wide, see `widen`.
        epsilon: 0-d, absolute, as wide.
        iterate, evaluate: of the solver.
        tolerance: of the error.
        first: fp32 or fp64.
    """
    cost = problem.cost.detach()
    log_kernel = cost / -epsilon
    for dtype in dict.fromkeys((first, cost.dtype)):
        given = (t.to(dtype) for t in (log_kernel, *problem.marginals))
        scaled = iterate(*given)
        plan, error = evaluate(
            problem,
            scaled._replace(
                source=scaled.source.to(cost.dtype), target=scaled.target.to(cost.dtype)
            ),
        )
        found = float(error)
        if found <= 1.1 * tolerance + ROUNDING:
            return dataclasses.replace(plan, converged=True)
        lost = float(log_kernel.abs().amax()) * torch.finfo(dtype).eps
        if not scaled.converged and math.isfinite(found) and lost < tolerance / 8:
            break  # more iterations would help, more digits would not
    return dataclasses.replace(plan, converged=False)


def warn_unless_converged(what: str, tolerance: float, *plans: TransportPlan) -> None:
    """Warn of the plans that did not reach the tolerance; the caller's caller is shown.

    Warns:
        ConvergenceWarning: see above.
    """
    for plan in plans:
        if not plan.converged:
            warnings.warn(
                f"{what} did not reach a marginal error of {tolerance} in {plan.iterations} "
                "iterations: the plan is approximate. Raise epsilon, max_iterations or tolerance.",
                ConvergenceWarning,
                stacklevel=3,
            )
            return


def _given(problem: TransportProblem) -> tuple[Tensor | None, Tensor | None]:
    return problem.source_weights, problem.target_weights
