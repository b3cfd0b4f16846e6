"""A change of a frozen matrix by two thin ones (LoRA, Hu et al., 2021, arXiv:2106.09685)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MATRICES = ("q", "k", "v", "o", "fc", "proj")
"""Of a block: queries, keys, values and output of the attention, and the two of the MLP."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """What is added to a matrix [N, K]: scale · up · down.

    Attributes:
        down: [r, K].
        up: [N, r].
        scale: factor of the product.
        dropout: share of the entries of what is multiplied that are left out, the others scaled up;
            0 outside of training.
        generator: draws them, on the device of the matrices.
    """

    down: Tensor
    up: Tensor
    scale: float
    dropout: float = 0.0
    generator: torch.Generator | None = None

    def __call__(self, x: Tensor) -> Tensor:  # [..., K] → [..., N]
        """What it adds to the product with `x`, in the precision of `down`."""
        x = x.to(self.down.dtype)
        if self.dropout > 0:
            kept = torch.empty_like(x).bernoulli_(1 - self.dropout, generator=self.generator)
            x = x * kept.div_(1 - self.dropout)
        return F.linear(F.linear(x, self.down), self.up) * self.scale

    def matrix(self) -> Tensor:
        """[N, K]"""
        return self.scale * self.up @ self.down


Deltas = Mapping[str, LowRank]
"""What changes in one block, by the names in `MATRICES`."""
