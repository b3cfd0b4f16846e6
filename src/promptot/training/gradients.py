"""From the loss of a batch to the gradients that the optimiser sees."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from promptot.training.loss import BatchLoss


def backpropagate(loss: BatchLoss, parameters: Sequence[Tensor], scale: float = 1.0) -> None:
    """Leave the gradients of a loss at the parameters, times `scale`.

    With a `guide` they are projected, each parameter's on its own (ProGrad, Zhu et al., 2023):
    where the loss falls in a direction in which the guide rises, the part along the guide's
    gradient k is taken out λ times, g − λ · min(0, ⟨g, k⟩) / ‖k‖² · k.
    """
    if loss.guide is None:
        (loss.total * scale).backward()
        return
    along = torch.autograd.grad(
        loss.guide.value * scale, list(parameters), retain_graph=True, allow_unused=True
    )
    (loss.total * scale).backward()
    for parameter, direction in zip(parameters, along, strict=True):
        if parameter.grad is None or direction is None:
            continue
        against = (parameter.grad * direction).sum().clamp(max=0)
        length = direction.square().sum()
        # a direction of no length is in conflict with nothing
        share = torch.where(length > 0, against / length, 0) * loss.guide.strength
        parameter.grad -= share * direction
