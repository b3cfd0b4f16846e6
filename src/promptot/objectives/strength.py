"""How λ, the strength of the preservation term, changes over the steps."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

import torch
from torch import Tensor

from promptot.errors import PromptotError
from promptot.objectives.objective_state import Stateful
from promptot.transport.numeric import require_positive
from promptot.transport.precision import widest


class StrengthControl(Stateful, Protocol):
    """A factor on λ that may depend on the steps so far."""

    @property
    def factor(self) -> Tensor:
        """What λ is multiplied by in this step."""
        ...

    def update(self, preservation: Tensor) -> None:
        """Move on by one step, in which the preservation term was this, 0-d."""
        ...


class RampStrength:
    """From `first` times λ to `last` times λ, linearly over the steps of a run, then constant.

    Args:
        steps: of the run; the last of them uses `last`.
        first: factor of the first step, zero or more.
        last: factor of the last step, zero or more.

    Raises:
        PromptotError: a number is out of range.

    Example:
        >>> ramp, used = RampStrength(steps=3), []
        >>> for _ in range(4):
        ...     used.append(ramp.factor.item())
        ...     ramp.update(torch.tensor(0.1))
        >>> used
        [0.0, 0.5, 1.0, 1.0]
    """

    def __init__(self, steps: int, first: float = 0.0, last: float = 1.0) -> None:
        require_positive(steps=steps)
        if not (0 <= first < float("inf") and 0 <= last < float("inf")):
            raise PromptotError(
                f"A ramp from {first} to {last} times the strength.",
                fix="Give two numbers from zero upwards.",
            )
        self.steps, self.first, self.last = steps, first, last
        self._done = torch.tensor(0)

    @property
    def factor(self) -> Tensor:
        """See `StrengthControl`."""
        done = self._done.to(widest(torch.float32, self._done.device))
        share = (done / (self.steps - 1)).clamp(max=1) if self.steps > 1 else torch.ones_like(done)
        return self.first + (self.last - self.first) * share

    def update(self, preservation: Tensor) -> None:
        """See `StrengthControl`; only the device of `preservation` has an effect."""
        self._done = self._done.to(preservation.device) + 1

    def state_dict(self) -> dict[str, Tensor]:
        """The number of steps done."""
        return {"steps_done": self._done}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`.

        Raises:
            ValueError: it is no number of steps.
        """
        done = state["steps_done"]
        if done.dim() != 0 or done.is_floating_point() or int(done) < 0:
            raise ValueError("steps are one whole number, zero or more")
        self._done = done


class BudgetStrength:
    """λ rises while the preservation term is above its budget, and falls while it is below.

    Dual ascent on "least cross-entropy subject to preservation ≤ budget": after a step with
    preservation p the factor μ becomes max(0, μ + rate · (p / budget − 1)), from μ = 1. Wherever
    μ stays above zero, the mean of p over n steps differs from the budget by
    budget · (μ_n − μ_0) / (rate · n): the average meets the budget, single steps need not.

    Args:
        budget: of the preservation term, in its own units, above zero.
        rate: how fast λ changes, above zero: a batch without any drift lowers it by this share of
            the initial λ.

    Raises:
        PromptotError: a number is not positive.

    Example:
        >>> control = BudgetStrength(budget=0.1, rate=0.5)
        >>> control.update(torch.tensor(0.2))
        >>> control.factor
        tensor(1.5000)
    """

    def __init__(self, budget: float, rate: float = 0.02) -> None:
        require_positive(budget=budget, rate=rate)
        self.budget, self.rate = budget, rate
        self._factor = torch.tensor(1.0)

    @property
    def factor(self) -> Tensor:
        """See `StrengthControl`."""
        return self._factor

    def update(self, preservation: Tensor) -> None:
        """See `StrengthControl`."""
        excess = preservation.detach() / self.budget - 1
        self._factor = (self._factor.to(excess) + self.rate * excess).clamp_min(0)

    def state_dict(self) -> dict[str, Tensor]:
        """The factor on λ."""
        return {"factor": self._factor}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from `state_dict`.

        Raises:
            ValueError: it is no factor.
        """
        factor = state["factor"]
        if factor.dim() != 0 or not factor.is_floating_point() or not 0 <= float(factor) < math.inf:
            raise ValueError("a factor is one number, zero or more")
        self._factor = factor
