"""Exact plans: by enumeration, by assignment, or by network simplex."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from promptot.graphs import is_host
from promptot.transport.plan import ConvergenceWarning, TransportPlan
from promptot.transport.problem import TransportProblem

ENUMERATION_LIMIT = 6  # 6! = 720 permutations, one gather
SIMPLEX_ITERATIONS = 1_000_000
SMALL_SHARE = 1e-6  # of the largest cost

Array = npt.NDArray[Any]


def solve_exact(problem: TransportProblem) -> TransportPlan:
    """A coupling of least cost, min over π of Σ π_ij C_ij.

    - Uniform marginals of equal size N: the optimum is a permutation (Birkhoff). Up to N = 6 all
      N! are tried on the device without waiting for it; above, the Hungarian-type solver of
      `scipy.optimize.linear_sum_assignment` runs on the host. Where the identity is optimal to
      within rounding it is returned, so that duplicated points never count as moved.
    - Any other marginals, zero weights included: the network simplex of POT, `ot.emd`, in fp64
      on the host, which also gives the dual potentials.

    Gradient: the plan is constant, `value` is differentiable in the cost (envelope theorem, see
    `TransportPlan`); exact.

    Costs are checked to be finite, except when the enumeration runs on an accelerator: a check
    would wait for the device. There a non-finite cost gives a NaN `value`;
    `problem.check_finite()` then says where it comes from.

    Args:
        problem: cost [N, M] and marginals.

    Returns:
        The plan, with `converged` and `iterations` = 0 (POT reports no count).

    Raises:
        PromptotError: a cost is NaN or infinite.

    Example:
        >>> import torch
        >>> cost = torch.tensor([[4.0, 1.0], [1.0, 4.0]])
        >>> result = solve_exact(TransportProblem(cost))
        >>> result.plan
        tensor([[0.0000, 0.5000],
                [0.5000, 0.0000]])
        >>> result.value, result.off_diagonal_mass
        (tensor(1.), tensor(1.))
    """
    size = problem.cost.shape[0]
    enumerate_on_device = problem.is_assignment and size <= ENUMERATION_LIMIT
    if not enumerate_on_device or is_host(problem.cost):
        problem.check_finite()
    cost = problem.cost.detach()
    potentials, converged = None, True
    if problem.is_assignment:
        columns = _best_permutation(cost) if enumerate_on_device else _assignment(cost)
        plan = torch.zeros_like(cost).scatter_(1, columns[:, None], 1 / size)
    else:
        plan, potentials, converged = _network_simplex(problem)
    value = (plan * problem.cost).sum()
    return TransportPlan(
        problem=problem,
        plan=plan,
        value=value,
        potentials=potentials,
        converged=converged,
    )


@functools.cache
def _permutations(size: int, device: torch.device) -> Tensor:
    """All permutations [N!, N], the identity first."""
    return torch.tensor(list(itertools.permutations(range(size))), device=device)


def _best_permutation(cost: Tensor) -> Tensor:
    """Columns [N] of the cheapest permutation of `cost` [N, N], without a synchronisation.

    The identity where it costs the same to within rounding.
    """
    table = _permutations(len(cost), cost.device)  # [N!, N]
    totals = cost.gather(1, table.T).sum(dim=0)  # [N!]
    stay = totals[:1]
    stay.sub_(stay.abs(), alpha=_rounding(cost))
    # index_select, as indexing with a 0-d tensor would fetch it to the host.
    return table.index_select(0, totals.argmin().reshape(1))[0]


def _assignment(cost: Tensor) -> Tensor:
    """Columns [N] of the cheapest permutation of `cost` [N, N], on the host.

    The identity where it costs the same to within rounding.
    """
    from scipy.optimize import linear_sum_assignment

    _, columns = linear_sum_assignment(cost.cpu().numpy())
    best = torch.as_tensor(columns, device=cost.device)
    stay, move = cost.diagonal().sum(), cost.gather(1, best[:, None]).sum()
    same = stay - move <= _rounding(cost) * stay.abs()
    return torch.where(same, torch.arange(len(best), device=best.device), best)


def _rounding(cost: Tensor) -> float:
    return 4 * torch.finfo(cost.dtype).eps


def _network_simplex(
    problem: TransportProblem,
) -> tuple[Tensor, tuple[Tensor, Tensor], bool]:
    """Plan, potentials and whether it is the optimum.

    The simplex takes a reduced cost within about 1e-15 of zero for zero, whatever the costs are:
    they are brought to a size of one. Where a few are far larger than those that the plan pays, a
    second look is had at the size of the latter.
    """
    cost = problem.cost.detach().cpu().double().numpy()
    source, target = (weights.cpu().double().numpy() for weights in problem.marginals)
    target = target * (source.sum() / target.sum())
    best = _solve_at(_size(np.abs(cost).max()), source, target, cost)
    paid = float((best.plan * np.abs(cost)).sum())
    if 0 < paid < SMALL_SHARE * float(np.abs(cost).max()):
        again = _solve_at(_size(paid), source, target, cost)
        if again.message is None and (again.plan * cost).sum() < (best.plan * cost).sum():
            best = again
    if best.message is not None:
        warnings.warn(f"Exact transport: {best.message}", ConvergenceWarning, stacklevel=3)
    back = functools.partial(torch.as_tensor, dtype=problem.cost.dtype, device=problem.cost.device)
    return back(best.plan), (back(best.u), back(best.v)), best.message is None


class _Simplex(NamedTuple):
    plan: Array
    u: Array
    v: Array
    message: str | None


def _size(value: float) -> float:
    """The power of two just below a cost, by which dividing is exact; 1 for none."""
    if not value > 0:
        return 1.0
    return float(2.0 ** max(math.frexp(value)[1] - 1, -1000))


def _solve_at(size: float, source: Array, target: Array, cost: Array) -> _Simplex:
    import ot

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # POT warns too; one warning is enough
        plan, log = ot.emd(source, target, cost / size, numItermax=SIMPLEX_ITERATIONS, log=True)
    return _Simplex(plan, size * log["u"], size * log["v"], log["warning"])
