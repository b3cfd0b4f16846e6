"""Numbers that are not finite: found before they reach the prompts, and explained."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, nn

from promptot.errors import NotFinite, listed

MOST_NAMES = 8
"""Images that a message names."""


def finite_gradients(parameters: Iterable[Tensor]) -> Tensor:
    """Whether every gradient is finite, 0-d bool."""
    largest = [p.grad.abs().amax() for p in parameters if p.grad is not None]
    return torch.stack(largest).isfinite().all()


def require_finite(prompts: nn.Module) -> None:
    """Refuse prompts that nothing could be computed with.

    Raises:
        NotFinite: a parameter holds NaN or infinity.
    """
    for name, parameter in prompts.named_parameters():
        if not bool(parameter.isfinite().all()):
            raise NotFinite(
                f"The prompts '{name}' have grown beyond what numbers can hold.",
                fix="Lower optim.lr.",
            )


def describe_nonfinite(total: float, cross_entropy: float, preservation: float) -> NotFinite:
    """What is not finite: the loss, or else the gradient."""
    if math.isfinite(total):
        return NotFinite(f"The gradient is not finite, though the loss is ({total:g}).")
    return NotFinite(
        f"The loss is not finite (cross-entropy {cross_entropy:g}, preservation {preservation:g})."
    )


def explain_nonfinite(
    error: NotFinite, place: str, names: Sequence[str], finite_images: bool, prompts: nn.Module
) -> NotFinite:
    """What happened in which step, on which images, why as far as can be told, and what to do.

    Args:
        error: what was found.
        place: the epoch and the step.
        names: of the images of its batch.
        finite_images: whether the images themselves are finite.
    """
    problem = error.problem
    advice = "Lower optim.lr or objective.strength"
    if not finite_images:
        problem += " The images themselves hold such values."
        advice = "Look at these images"
    elif not all(bool(p.isfinite().all()) for p in prompts.parameters()):
        problem += " The step before had made the prompts so."
        advice = "Lower optim.lr"
    if names:
        problem += f" The batch was {listed(names, MOST_NAMES)}."
    return NotFinite(
        f"{place}: {problem}",
        fix=f"{advice}; or leave such batches out with optim.on_nonfinite=skip. "
        "The last checkpoint, if there is one, is intact.",
    )
