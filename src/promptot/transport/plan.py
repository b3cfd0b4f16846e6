"""What every transport solver returns."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from promptot.errors import PromptotError
from promptot.transport.problem import TransportProblem


class ConvergenceWarning(UserWarning):
    """A solver stopped short of its tolerance; the plan's `marginal_error` says by how much."""


@dataclass(frozen=True, eq=False)
class TransportPlan:
    """A coupling, its cost, and how well it was solved.

    Gradients: the plan is a constant (detached). By the envelope theorem (Danskin) the gradient
    of a minimum is the gradient of the minimised function at the fixed minimiser, so
    d/dC = π is the exact gradient of `value` for an exact plan, and of `regularised_value` for an
    entropic one. The `value` of an entropic plan carries that same gradient, not that of
    Σ π_ij C_ij as a function of C: descending it descends `regularised_value`. Where several
    plans are optimal it is a subgradient.
    """

    problem: TransportProblem
    plan: Tensor  # [N, M], detached
    value: Tensor  # 0-d: Σ π_ij C_ij
    potentials: tuple[Tensor, Tensor] | None = None  # dual optimum [N], [M], in units of the cost
    epsilon: Tensor | None = None  # 0-d: the absolute ε of an entropic plan
    converged: bool = True
    iterations: int = 0
    dual_value: Callable[[], Tensor] | None = None  # 0-d, of a plan with ε; worked out when called

    @property
    def cost(self) -> Tensor:
        """What the plan was solved for, [N, M]."""
        return self.problem.cost

    @cached_property
    def regularised_value(self) -> Tensor:
        """Σ π_ij C_ij + ε KL(π ‖ a ⊗ b) and what else the solver minimises, 0-d; `value` without ε.

        It is the dual value, which errs by the square of the marginal error, where the primal one
        errs by its first power.
        """
        if self.dual_value is None:
            return self.value
        return self.value + (self.dual_value() - self.value).detach()

    @cached_property
    def marginal_error(self) -> Tensor:
        """L1 violation of the worse marginal, 0-d."""
        return self.problem.marginal_error(self.plan)

    @property
    def off_diagonal_mass(self) -> Tensor:
        """Share of the mass that goes from i to some j ≠ i: `1 − Σ_i π_ii / Σ_ij π_ij`, 0-d.

        0 for the identity plan (the loss is then the point-wise one), 1 if nothing stays.

        Raises:
            PromptotError: the plan is not square.
        """
        rows, columns = self.plan.shape
        if rows != columns:
            raise PromptotError(
                f"A plan of shape [{rows}, {columns}] has no diagonal.",
                fix="Off-diagonal mass is defined when both sides hold the same points.",
            )
        diagonal = torch.eye(rows, dtype=torch.bool, device=self.plan.device)
        return self.plan.masked_fill(diagonal, 0).sum() / self.plan.sum()

    @property
    def entropy(self) -> Tensor:
        """How soft the plan is, from 0 to 1, 0-d.

        `(H(π) − max(H(a), H(b))) / min(H(a), H(b))` with H(p) = −Σ p log p and a, b the plan's
        own marginals; equivalently 1 − I(π) / min(H(a), H(b)), I the mutual information. It is
        1 for the independent coupling a ⊗ b, and 0 when one side determines the other, as in a
        permutation. With a single point on one side the coupling is fixed, and this is 0.
        """
        plan = self.plan / self.plan.sum()
        joint = torch.special.entr(plan).sum()
        rows = torch.special.entr(plan.sum(dim=1)).sum()
        columns = torch.special.entr(plan.sum(dim=0)).sum()
        most, least = torch.maximum(rows, columns), torch.minimum(rows, columns)
        defined = least > torch.finfo(plan.dtype).eps * plan.numel()
        share = (joint - most) / torch.where(defined, least, 1)
        return torch.where(defined, share, 0).clamp(0, 1)
