"""Partial plans: only a share of the mass has to move, the rest is left where it is."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.errors import PromptotError
from promptot.transport.exact import solve_exact
from promptot.transport.plan import TransportPlan
from promptot.transport.problem import TransportProblem


def solve_partial(problem: TransportProblem, mass: float = 0.9) -> TransportPlan:
    """The plan of least cost that moves `mass`: min Σ π_ij C_ij, π1 ≤ a, πᵀ1 ≤ b, Σ π_ij = mass.

    Rows that are expensive to move are left out: a loss on it forgives the points that drifted
    most. A dummy point on each side takes, at no cost, what is not moved (Chapel et al., 2020,
    "Partial optimal transport with applications on positive-unlabeled learning"), and the network
    simplex of `solve_exact` solves that problem, on the host: fine for hundreds of points, slow
    for thousands. On a square problem the plan stays on the diagonal where that costs the same to
    within rounding, so that duplicated points never count as moved.

    Gradient: the plan is constant, `value` is differentiable in the cost (envelope theorem, see
    `TransportPlan`); exact, and zero for the rows that are left out.

    Args:
        problem: cost [N, M], of any sign, and marginals.
        mass: share of the total mass 1 to move, above 0 and at most 1; at 1 this is `solve_exact`.

    Returns:
        The plan of total mass `mass`, without potentials. Its `marginal_error` is what the
        marginals of `problem` are missed by, at least 1 − `mass`.

    Raises:
        PromptotError: a cost is NaN or infinite, or `mass` is out of range.

    Example:
        >>> cost = torch.tensor([[0.1, 9.0], [9.0, 5.0]])
        >>> solve_partial(TransportProblem(cost), mass=0.6).plan.round(decimals=3)
        tensor([[0.5000, 0.0000],
                [0.0000, 0.1000]])
    """
    require_share(mass=mass)
    problem.check_finite()
    if mass == 1:
        return solve_exact(problem)
    rows, columns = problem.cost.shape
    cost = problem.cost.detach()
    extended = F.pad(cost, (0, 1, 0, 1))  # [N + 1, M + 1], nothing to and from the dummies
    # What went between the dummies would have to move elsewhere: never worth it at this price.
    largest = cost.abs().max()
    extended[rows, columns] = torch.where(largest > 0, 2 * largest, 1)
    source, target = (
        torch.cat([weights, weights.new_tensor([1 - mass])]) / (2 - mass)
        for weights in problem.marginals
    )
    result = solve_exact(TransportProblem(extended, source, target))
    plan = (2 - mass) * result.plan[:rows, :columns]
    plan = _prefer_diagonal(problem, plan, mass)
    value = (plan * problem.cost).sum()
    return dataclasses.replace(
        result,
        problem=problem,
        plan=plan,
        value=value,
        potentials=None,
    )


def require_share(**values: float) -> None:
    """Refuse options that are not above 0 and at most 1.

    Raises:
        PromptotError: names the first such option.
    """
    for name, value in values.items():
        if not 0 < value <= 1:
            raise PromptotError(
                f"'{name}' is {value}.", fix="Give a number above 0 and not above 1."
            )


def _prefer_diagonal(problem: TransportProblem, plan: Tensor, mass: float) -> Tensor:
    """The best plan on the diagonal if it costs no more than `plan` to within rounding."""
    cost = problem.cost.detach()
    source, target = problem.marginals
    if len(source) != len(target):
        return plan
    room = torch.minimum(source, target)
    if float(room.sum()) < mass:
        return plan
    cheapest = cost.diagonal().argsort()
    filled = room[cheapest].cumsum(0).clamp(max=mass)
    share = torch.zeros_like(room).scatter(0, cheapest, filled.diff(prepend=filled.new_zeros(1)))
    stay, move = (share * cost.diagonal()).sum(), (plan * cost).sum()
    same = stay - move <= 4 * torch.finfo(cost.dtype).eps * stay.abs()
    return torch.where(same, share.diag(), plan)
