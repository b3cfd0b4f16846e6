"""Plans of a step that is a graph of kernels, where the solver has to look at values."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from promptot.graphs import between_graphs, is_host
from promptot.transport.exact import ENUMERATION_LIMIT, solve_exact
from promptot.transport.plan import TransportPlan
from promptot.transport.problem import TransportProblem


def solve_outside(
    solver: Callable[[TransportProblem], TransportPlan], problem: TransportProblem
) -> TransportPlan:
    """`solver(problem)`, of whose plan alone is known where it is solved between two graphs.

    So it is on a GPU, but for small exact plans, which are enumerated there.
    """
    enumerated = solver is solve_exact and len(problem.cost) <= ENUMERATION_LIMIT
    if is_host(problem.cost) or enumerated:
        return solver(problem)

    def plan_of(cost: Tensor) -> tuple[Tensor]:
        return (solver(TransportProblem(cost)).plan,)

    (plan,) = between_graphs(plan_of, problem.cost.detach())
    return TransportPlan(problem, plan, (plan * problem.cost).sum())
