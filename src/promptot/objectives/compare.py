"""One comparison of rows, also where a step is a graph of kernels and the solver needs the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from promptot.graphs import between_graphs, is_host
from promptot.objectives.comparisons import Comparison
from promptot.objectives.preservation import PreservationResult


def compare(comparison: Comparison, student: Tensor, teacher: Tensor) -> PreservationResult:
    """`comparison(student, teacher)`, of rows [N, W] each.

    On a GPU a comparison that looks at values (`Comparison.on_device` says which) is computed with
    its gradient outside of graphs; the value carries that gradient, and no second one.

    Raises:
        PromptotError: a row is NaN or infinite, where the comparison looks.
    """
    if is_host(student) or comparison.on_device:
        return comparison(student, teacher)

    def solve(student: Tensor, teacher: Tensor) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            rows = student.detach().requires_grad_()
            result = comparison(rows, teacher)
            (gradient,) = torch.autograd.grad(result.value, rows)
        parts = result.off_diagonal_mass, result.plan_entropy, result.plan
        assert None not in parts, "comparisons that look at values solve for plans"
        return tuple(p.detach() for p in (result.value, gradient, *parts) if p is not None)

    value, gradient, moved, entropy, plan = between_graphs(solve, student, teacher)
    return PreservationResult(_Known.apply(student, value, gradient), moved, entropy, plan)


class _Known(torch.autograd.Function):
    """A value, as a function of rows whose gradient is known."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, value: Tensor, gradient: Tensor) -> Tensor:
        ctx.save_for_backward(gradient)
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:
        (gradient,) = ctx.saved_tensors
        return above[0] * gradient, None, None
