"""Points without weight: left out while solving, given their place in the result."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from promptot.transport.plan import TransportPlan
from promptot.transport.problem import TransportProblem


@dataclasses.dataclass(frozen=True)
class Support:
    """The points of a problem that hold mass.

    A point without any changes no plan; but its log weight is −∞, and its potential, which nothing
    but its own cost bounds, may be ∞: 0 · ∞ is NaN.
    """

    rows: Tensor  # [N'], indices
    columns: Tensor  # [M'], indices

    def restrict(self, problem: TransportProblem) -> TransportProblem:
        """The problem of these points alone."""
        source, target = problem.marginals
        cost = problem.cost[self.rows[:, None], self.columns]
        return TransportProblem(cost, source[self.rows], target[self.columns])

    def extend(
        self, problem: TransportProblem, part: TransportPlan, damping: float = 1.0
    ) -> TransportPlan:
        """The plan of `problem` that has the `part` on these points and nothing elsewhere.

        Potentials of the other points are what the condition of optimality says: f_i = −τ ε
        log Σ_j b_j exp((g_j − C_ij) / ε), τ the `damping` (1 for balanced plans).
        """
        assert part.potentials is not None
        assert part.epsilon is not None
        cost = problem.cost.detach()
        plan = torch.zeros_like(cost)
        plan[self.rows[:, None], self.columns] = part.plan
        source, target = problem.marginals
        f, g = part.potentials
        of_rows = damping * _soft_minimum(
            cost[:, self.columns] - g, target[self.columns], part.epsilon
        )
        of_columns = damping * _soft_minimum(cost[self.rows].T - f, source[self.rows], part.epsilon)
        of_rows[self.rows], of_columns[self.columns] = f, g
        return dataclasses.replace(
            part,
            problem=problem,
            plan=plan,
            value=(plan * problem.cost).sum(),
            potentials=(of_rows, of_columns),
        )


def find_support(problem: TransportProblem) -> Support | None:
    """The points with mass; None where all have some. Uniform weights are not looked at."""
    if problem.source_weights is None and problem.target_weights is None:
        return None
    rows, columns = (weights > 0 for weights in problem.marginals)
    if bool(rows.all() & columns.all()):
        return None
    return Support(rows.nonzero().flatten(), columns.nonzero().flatten())


def _soft_minimum(values: Tensor, weights: Tensor, epsilon: Tensor) -> Tensor:
    """−ε log Σ_j w_j exp(−values_ij / ε), [N] of [N, M], for values of any size."""
    least = values.amin(dim=1, keepdim=True)
    return least[:, 0] - epsilon * torch.logsumexp(
        weights.log() - (values - least) / epsilon, dim=1
    )
