"""An image encoder that is used as it is, such as a ResNet or a ConvNeXt: no tokens can join it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptot.backbones.encoders import ImageEncoder
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.towers.fixed_stem import FixedStem


class ImageExtractor(ImageEncoder):
    """A frozen network whose features are what its stem gives: one token [B, 1, D].

    So whatever keeps a stem's tokens keeps the features.

    Args:
        network: images [B, 3, R, R] → features [B, D].
        embed_dim: size D of the features.
    """

    def __init__(self, network: nn.Module, embed_dim: int) -> None:
        super().__init__()
        self.stem = FixedStem(network)
        self.patches = 1
        self.width = embed_dim

    @property
    def layers(self) -> int:
        return 0

    @property
    def embed_dim(self) -> int:
        return self.width

    def store_matrices(self, dtype: torch.dtype) -> None:
        """Nothing: the network stays in fp32, as nothing learns through it."""

    def encode(self, tokens: Tensor, injection: Injection = FROZEN) -> Tensor:
        """Features [B, D], not normalised, of the stem's one token [B, 1, D]."""
        if injection.image_tokens:
            raise ValueError("this image encoder takes no tokens; `promptable` says so")
        return tokens[:, 0]
