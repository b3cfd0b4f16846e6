"""Numbers that are not finite: found before they reach the prompts, and explained."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from promptot.data.loader import Batch
from promptot.errors import NotFinite

MOST_NAMES = 8
"""Images that a message names."""


def finite_gradients(prompts: nn.Module) -> Tensor:
    """Whether every gradient is finite, 0-d bool."""
    largest = [p.grad.abs().amax() for p in prompts.parameters() if p.grad is not None]
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


def explain_nonfinite(
    error: NotFinite,
    epoch: int,
    step: int,
    batch: Batch,
    prompts: nn.Module,
    images: Sequence[str] = (),
) -> NotFinite:
    """What happened in which step, on which images, why as far as can be told, and what to do.

    Args:
        error: what was found.
        batch: it was found on.
        images: name of each image, by its index in the task.
    """
    problem = error.problem
    advice = "Lower optim.lr or objective.strength"
    if not bool(batch.images.isfinite().all()):
        problem += " The images themselves hold such values."
        advice = "Look at these images"
    elif not all(bool(p.isfinite().all()) for p in prompts.parameters()):
        problem += " The step before had made the prompts so."
        advice = "Lower optim.lr"
    names = [images[i] for i in batch.indices.tolist() if i < len(images)]
    if names:
        more = f" and {len(names) - MOST_NAMES} more" if len(names) > MOST_NAMES else ""
        listed = ", ".join(f"'{name}'" for name in names[:MOST_NAMES])
        problem += f" The batch was {listed}{more}."
    return NotFinite(
        f"Epoch {epoch}, step {step}: {problem}",
        fix=f"{advice}; or leave such batches out with optim.on_nonfinite=skip. "
        "The last checkpoint, if there is one, is intact.",
    )
