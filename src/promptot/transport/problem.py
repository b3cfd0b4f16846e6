"""A transport problem: what moving costs, and how much mass each point holds."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from promptot.errors import NotFinite, PromptotError
from promptot.transport.numeric import at_least_float32


@dataclass(frozen=True, eq=False)
class TransportProblem:
    """Move the source marginal onto the target marginal at the least cost.

    The couplings that a solver may choose from are the plans π ≥ 0 [N, M] whose rows sum to the
    source marginal and whose columns sum to the target marginal.

    Args:
        cost: [N, M] cost per unit of mass; bf16 and fp16 are raised to fp32.
        source_weights: [N] non-negative, sum 1; None means 1/N each. Zero weights are allowed.
        target_weights: [M] non-negative, sum 1; None means 1/M each.

    Raises:
        PromptotError: a wrong shape, dtype, sign or total.

    Example:
        >>> import torch
        >>> TransportProblem(torch.zeros(2, 4)).marginals
        (tensor([0.5000, 0.5000]), tensor([0.2500, 0.2500, 0.2500, 0.2500]))
    """

    cost: Tensor  # [N, M]
    source_weights: Tensor | None = None  # [N]
    target_weights: Tensor | None = None  # [M]

    def __post_init__(self) -> None:
        if self.cost.ndim != 2 or self.cost.numel() == 0 or not self.cost.is_floating_point():
            raise PromptotError(
                f"A transport cost of shape {list(self.cost.shape)} and type {self.cost.dtype}.",
                fix="Give a floating-point matrix [N, M] with at least one row and one column.",
            )
        cost = at_least_float32(self.cost)
        object.__setattr__(self, "cost", cost)
        for name, size in (("source_weights", cost.shape[0]), ("target_weights", cost.shape[1])):
            weights = getattr(self, name)
            if weights is not None:
                object.__setattr__(self, name, _checked_weights(name, weights, size, cost))

    @property
    def is_assignment(self) -> bool:
        """Uniform marginals of equal size: some optimal plan is a permutation divided by N."""
        rows, columns = self.cost.shape
        return rows == columns and self.source_weights is None and self.target_weights is None

    @cached_property
    def marginals(self) -> tuple[Tensor, Tensor]:
        """Source [N] and target [M] weights, uniform ones written out."""
        rows, columns = self.cost.shape
        source, target = self.source_weights, self.target_weights
        return (
            self.cost.new_full((rows,), 1 / rows) if source is None else source,
            self.cost.new_full((columns,), 1 / columns) if target is None else target,
        )

    def marginal_error(self, plan: Tensor) -> Tensor:
        """L1 distance of a plan's [N, M] row or column sums from the marginals: the larger, 0-d."""
        source, target = self.marginals
        return torch.maximum(
            (plan.sum(dim=1) - source).abs().sum(), (plan.sum(dim=0) - target).abs().sum()
        )

    def check_finite(self) -> None:
        """Refuse NaN and infinite costs. On an accelerator this waits for the device.

        Raises:
            NotFinite: names the rows (or columns) of the cost that are not finite.
        """
        cost = self.cost.detach()  # [N, M]
        if math.isfinite(float(cost.sum())):  # one pass; finite costs can add up to infinity
            return
        finite = cost.isfinite()
        if bool(finite.all()):
            return
        bad = ~finite
        # A NaN feature spoils its whole row or column; failing that, any row that has one.
        rows, columns = bad.all(dim=1), bad.all(dim=0)
        if not bool(rows.any() | columns.any()):
            rows = bad.any(dim=1)
        places = [
            _listed(side, where)
            for side, where in (("source", rows), ("target", columns))
            if bool(where.any())
        ]
        raise NotFinite(
            f"The transport cost is NaN or infinite for {' and '.join(places)}.",
            fix="Look for NaN or huge values in the features of these rows; in training, lower "
            "the learning rate or use fp32 instead of 16-bit precision.",
        )


def _checked_weights(name: str, weights: Tensor, size: int, cost: Tensor) -> Tensor:
    weights = weights.detach().to(cost)
    if weights.shape != (size,):
        raise PromptotError(
            f"'{name}' has shape {list(weights.shape)}, the cost {list(cost.shape)}.",
            fix=f"Give {size} weights.",
        )
    total = weights.sum()
    if not bool((weights >= 0).all()) or not bool((total - 1).abs() <= 1e-4):
        raise PromptotError(
            f"'{name}' must be non-negative with sum 1; the sum is {total.item():.6g} "
            f"and the least {weights.min().item():.6g}.",
            fix="Divide the weights by their sum.",
        )
    return weights / total


def _listed(side: str, where: Tensor) -> str:
    indices = where.nonzero().flatten().tolist()
    shown = ", ".join(map(str, indices[:10])) + (", …" if len(indices) > 10 else "")
    return f"{side} row{'s' if len(indices) > 1 else ''} {shown} (of {len(where)})"
