"""CLIP's image tower: a Vision Transformer that accepts learnable tokens at any depth."""

from __future__ import annotations

from dataclasses import asdict
from typing import ClassVar

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import ImageShape
from promptot.backbones.encoders import ImageEncoder
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.towers.activations import image_bytes
from promptot.backbones.towers.transformer import Transformer


class ImageTower(ImageEncoder):
    """Vision Transformer behind a replaceable stem.

    Args:
        stem: module that maps images [B, 3, R, R] to patch tokens [B, N, W].
        shape: of the rest; its `pool` says whether the feature is that of the class token
            ("class"), the mean of those of the patch tokens ("mean"), or that of a class token
            that begins with the mean of the patch tokens added ("class_with_mean"), so that what a
            trunk has pooled reaches the feature past all blocks.
        embed_dim: size D of the features.
    """

    promptable: ClassVar[bool] = True

    def __init__(self, stem: nn.Module, shape: ImageShape, embed_dim: int) -> None:
        super().__init__()
        self.stem = stem
        self.patches = shape.patches
        self.pool = shape.pool
        self.width = width = shape.transformer.width
        positions = shape.patches + 1
        self.class_embedding = nn.Parameter(torch.randn(width) * width**-0.5)
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) * width**-0.5)
        eps = shape.transformer.eps
        self.ln_pre = nn.LayerNorm(width, eps=eps) if shape.pre_norm else nn.Identity()
        self.transformer = Transformer(**asdict(shape.transformer))
        self.ln_post = nn.LayerNorm(width, eps=eps)
        self.proj = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)

    @property
    def layers(self) -> int:
        return len(self.transformer.resblocks)

    @property
    def embed_dim(self) -> int:
        return self.proj.shape[1]

    def store_matrices(self, dtype: torch.dtype) -> None:
        self.transformer.store_matrices(dtype)

    def activation_bytes(self, batch: int, injection: Injection) -> int:
        return image_bytes(self.transformer, self.patches, batch, injection)

    def encode(self, tokens: Tensor, injection: Injection = FROZEN) -> Tensor:
        """Features [B, D], not normalised, of patch tokens [B, N, W].

        The first of the injected tokens, [m, W] each, are appended to the sequence; those of each
        later block replace them there. Blocks beyond the last keep the tokens they are given.
        """
        prompts = injection.image_tokens
        batch = tokens.shape[0]
        class_token = self.class_embedding.expand(batch, 1, -1)
        if self.pool == "class_with_mean":
            class_token = class_token + tokens.mean(dim=1, keepdim=True)
        x = torch.cat([class_token, tokens], dim=1) + self.positional_embedding
        kept = x.shape[1]
        if prompts:
            x = torch.cat([x, prompts[0].expand(batch, -1, -1)], dim=1)
        x = self.ln_pre(x)  # [B, 1 + N + m, W]

        *blocks, last = self.transformer.blocks
        for depth, block in enumerate(blocks, start=1):
            if depth < len(prompts):  # what this block makes of its prompts is not read by the next
                x = torch.cat([block(x, kept), prompts[depth].expand(batch, -1, -1)], dim=1)
            else:
                x = block(x)

        if self.pool == "mean":
            pooled = self.ln_post(last(x)[:, 1:kept]).mean(dim=1)
        else:
            pooled = self.ln_post(last.read(x, position=0)[:, 0])
        return pooled @ self.proj
