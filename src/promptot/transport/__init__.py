"""Optimal transport on tensors: cost → problem → solver → one immutable result.

>>> import torch
>>> from promptot.transport import TransportProblem, solve_exact, squared_euclidean
>>> x = torch.tensor([[0.0, 0.0], [1.0, 0.0]], requires_grad=True)
>>> y = torch.tensor([[1.0, 0.1], [0.0, 0.1]])
>>> result = solve_exact(TransportProblem(squared_euclidean(x, y)))
>>> result.off_diagonal_mass  # each point goes to the other's partner
tensor(1.)
>>> result.value.backward()   # through the cost, the plan held constant
>>> x.grad
tensor([[ 0.0000, -0.0500],
        [ 0.0000, -0.0500]])
"""

from __future__ import annotations

from promptot.transport.cost import squared_euclidean
from promptot.transport.divergence import SinkhornDivergence, sinkhorn_divergence
from promptot.transport.exact import solve_exact
from promptot.transport.partial import solve_partial
from promptot.transport.plan import ConvergenceWarning, TransportPlan
from promptot.transport.problem import TransportProblem
from promptot.transport.sinkhorn import solve_sinkhorn
from promptot.transport.unbalanced import solve_unbalanced, unbalanced_divergence

__all__ = [
    "ConvergenceWarning",
    "SinkhornDivergence",
    "TransportPlan",
    "TransportProblem",
    "sinkhorn_divergence",
    "solve_exact",
    "solve_partial",
    "solve_sinkhorn",
    "solve_unbalanced",
    "squared_euclidean",
    "unbalanced_divergence",
]
