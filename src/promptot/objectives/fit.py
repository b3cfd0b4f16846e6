"""What the logits of a batch are fitted by, and how they become probabilities: the two go together.

A softmax lets the classes compete: their probabilities sum to 1, whatever the image shows. A
sigmoid asks of each class alone whether the image shows it, so that the answer may be none of them.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Fit = Literal["softmax", "sigmoid"]

NONE_BELOW = 0.5
"""A sigmoid that is lower says that the image rather does not show the class."""


def fit_loss(logits: Tensor, labels: Tensor, fit: Fit = "softmax") -> Tensor:
    """How badly logits fit the classes of a batch, 0-d.

    `softmax`: the mean cross-entropy. `sigmoid`: the binary cross-entropies of all pairs of an
    image and a class, summed over the classes and averaged over the images, as SigLIP has it (Zhai
    et al., 2023, "Sigmoid loss for language image pre-training", section 3.2):
    1/B · Σ_i Σ_j log(1 + exp(−z_ij · logit_ij)), z = 1 for an image's own class and −1 for the
    others.

    Args:
        logits: [B, C], at least fp32.
        labels: [B] long, class of each image.
        fit: one of the two.

    Example:
        >>> logits = torch.tensor([[0.0, -100.0]])
        >>> fit_loss(logits, torch.tensor([0]), "sigmoid")  # log 2 of the first, 0 of the second
        tensor(0.6931)
    """
    if fit == "softmax":
        return F.cross_entropy(logits, labels)
    own = torch.arange(logits.shape[1], device=logits.device) == labels[:, None]  # [B, C]
    return -F.logsigmoid(torch.where(own, logits, -logits)).sum(dim=1).mean()


def probabilities(logits: Tensor, fit: Fit = "softmax") -> Tensor:
    """The probability of each class, over the last axis of logits [..., C].

    Args:
        logits: of any floating type.
        fit: what the logits were fitted by. `softmax`: they sum to 1. `sigmoid`: each is for
            itself, and they need not.

    Example:
        >>> probabilities(torch.zeros(4), "softmax"), probabilities(torch.zeros(2), "sigmoid")
        (tensor([0.2500, 0.2500, 0.2500, 0.2500]), tensor([0.5000, 0.5000]))
    """
    return logits.sigmoid() if fit == "sigmoid" else logits.softmax(dim=-1)
