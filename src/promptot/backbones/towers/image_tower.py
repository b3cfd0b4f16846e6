"""The image tower: a Vision Transformer that accepts learnable tokens at any depth."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import ImageShape
from promptot.backbones.encoders import ImageEncoder
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.towers.activations import image_bytes
from promptot.backbones.towers.adapted_block import adapted
from promptot.backbones.towers.pooling import AttentionPool
from promptot.backbones.towers.transformer import Transformer

POOLS = (
    "class",
    "class_with_mean",
    "mean",
    "mean_before_norm",
    "attention",
    "attention_before_norm",
)


class ImageTower(ImageEncoder):
    """Vision Transformer behind a replaceable stem.

    The sequence is a class token, where the model has one, the patches, and the prompts behind
    them. Prompts have no place in the image: they get no position embedding and no rotation. They
    are looked at in every block, and by nothing behind the last one: the mean and the attention
    that pool a feature are over the tokens that they were trained over. Otherwise the last
    prompts would reach the feature past all blocks, the same for every image.

    Args:
        stem: module that maps images [B, 3, R, R] to patch tokens [B, N, W].
        shape: of the rest; its `pool` says where the feature is read. "class": at the class token.
            "mean": the mean over the patches; "attention": see `AttentionPool`. Tokens are
            normalised before that, or what was pooled of them is ("mean_before_norm",
            "attention_before_norm"). "class_with_mean": at a class token that begins with the mean
            of the patch tokens added, so that what a trunk has pooled reaches the feature past all
            blocks.
        embed_dim: size D of the features.
    """

    promptable: ClassVar[bool] = True
    class_embedding: nn.Parameter | None
    proj: nn.Parameter | None
    proj_bias: nn.Parameter | None
    rotation: Tensor | None

    def __init__(self, stem: nn.Module, shape: ImageShape, embed_dim: int) -> None:
        super().__init__()
        if shape.pool not in POOLS:
            raise ValueError(f"pool must be one of {POOLS}, not {shape.pool!r}")
        self.shape = shape
        self.stem = stem
        self.patches = shape.patches
        self.pool = shape.pool
        self.width = width = shape.transformer.width
        positions = shape.patches + shape.class_token
        eps = shape.transformer.eps
        first = nn.Parameter(torch.randn(width) * width**-0.5) if shape.class_token else None
        self.register_parameter("class_embedding", first)
        self.positional_embedding = nn.Parameter(torch.randn(positions, width) * width**-0.5)
        self.ln_pre = nn.LayerNorm(width, eps=eps) if shape.pre_norm else nn.Identity()
        self.transformer = Transformer(shape.transformer)
        pooled = width
        if shape.attention_pool is not None:
            self.attention_pool = AttentionPool(shape.attention_pool, width)
            pooled = shape.attention_pool.output
        normed = pooled if shape.pool.endswith("before_norm") else width
        self.ln_post = nn.LayerNorm(normed, eps=eps) if shape.final_norm else nn.Identity()
        matrix = nn.Parameter(torch.randn(pooled, embed_dim) * pooled**-0.5)
        bias = nn.Parameter(torch.zeros(embed_dim)) if shape.projection_bias else None
        self.register_parameter("proj", matrix if shape.projection else None)
        self.register_parameter("proj_bias", bias)
        head = width // shape.transformer.heads
        self.register_buffer("rotation", torch.zeros(2, positions, head) if shape.rotary else None)
        self._embed_dim = embed_dim

    @property
    def layers(self) -> int:
        return len(self.transformer.resblocks)

    @property
    def mlp_width(self) -> int:
        return self.shape.transformer.mlp_width

    @property
    def embed_dim(self) -> int:
        return self._embed_dim

    def store_matrices(self, dtype: torch.dtype) -> None:
        self.transformer.store_matrices(dtype)
        if self.pool.startswith("attention"):
            self.attention_pool.store_matrices(dtype)

    def activation_bytes(self, batch: int, injection: Injection) -> int:
        return image_bytes(self.transformer, self.patches, batch, injection)

    def encode(self, tokens: Tensor, injection: Injection = FROZEN) -> Tensor:
        """Features [B, D], not normalised, of patch tokens [B, N, W].

        The first of the injected tokens, [m, W] each, are appended to the sequence; those of each
        later block replace them there. Blocks beyond the last keep the tokens they are given.
        """
        prompts = injection.image_tokens
        batch = tokens.shape[0]
        x = self._with_class_token(tokens) + self.positional_embedding
        kept = x.shape[1]
        if prompts:
            x = torch.cat([x, prompts[0].expand(batch, -1, -1)], dim=1)
        x = self.ln_pre(x)  # [B, 1 + N + m, W]

        *blocks, last = adapted(self.transformer.blocks, injection.image_deltas)
        turn = self.rotation
        for depth, block in enumerate(blocks, start=1):
            if depth < len(prompts):  # what this block makes of its prompts is not read by the next
                own = prompts[depth].expand(batch, -1, -1)
                x = torch.cat([block(x, kept, rotation=turn), own], dim=1)
            else:
                x = block(x, rotation=turn)

        if self.pool.startswith("class"):
            pooled = self.ln_post(last.read(x, position=0, rotation=turn)[:, 0])
        else:
            pooled = self._pool(last(x, kept, rotation=turn))
        if self.proj is not None:
            pooled = pooled @ self.proj
        return pooled if self.proj_bias is None else pooled + self.proj_bias

    def _with_class_token(self, tokens: Tensor) -> Tensor:
        if self.class_embedding is None:
            return tokens
        first = self.class_embedding.expand(tokens.shape[0], 1, -1)
        if self.pool == "class_with_mean":
            first = first + tokens.mean(dim=1, keepdim=True)
        return torch.cat([first, tokens], dim=1)

    def _pool(self, x: Tensor) -> Tensor:
        """[B, 1 + N, W] or [B, N, W] → [B, O], normalised before or after."""
        late = self.pool.endswith("before_norm")
        if not late:
            x = self.ln_post(x)
        patches = x[:, int(self.class_embedding is not None) :]
        if self.pool.startswith("mean"):
            pooled = patches.mean(dim=1)
        else:
            pooled = self.attention_pool(x if self.attention_pool.class_token else patches)
        return self.ln_post(pooled.to(x.dtype)) if late else pooled.to(x.dtype)
