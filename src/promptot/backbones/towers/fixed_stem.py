"""A frozen network of another library as a stem."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptot.backbones.towers.stems import run_in_parts


class FixedStem(nn.Module):
    """Any frozen module that gives tokens, such as the convolutions before a hybrid's blocks.

    Args:
        module: images [B, 3, R, R] → tokens [B, N, W], or features [B, W], which are one token.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.eval()

    def forward(self, images: Tensor) -> Tensor:  # [B, 3, R, R] → [B, N, W]
        self.module.eval()
        with torch.no_grad():
            found = run_in_parts(self.module, images)
        return found.unsqueeze(1) if found.dim() == 2 else found
