"""Attention pooling: one learned query looks at all tokens of an image."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import PoolShape, TransformerShape
from promptot.backbones.towers.products import linear
from promptot.backbones.towers.transformer import MLP


class AttentionPool(nn.Module):
    """[B, L, W] → [B, O]: attention of one query, and an MLP that is added where the model has one.

    The query is the same for every image, so it is kept as it comes out of its projection.

    Args:
        shape: sizes.
        width: W, of the tokens.
    """

    def __init__(self, shape: PoolShape, width: int) -> None:
        super().__init__()
        self.heads = shape.heads
        self.class_token = shape.class_token
        self.query = nn.Parameter(torch.randn(shape.width))
        self.input_norm = nn.LayerNorm(width, eps=shape.eps) if shape.input_norm else None
        self.kv_weight = nn.Parameter(torch.randn(2 * shape.width, width) * width**-0.5)
        self.kv_bias = nn.Parameter(torch.zeros(2 * shape.width))
        self.out_proj = nn.Linear(shape.width, shape.output)
        self.norm: nn.LayerNorm | None = None
        self.mlp: MLP | None = None
        if shape.mlp_width is not None:
            self.norm = nn.LayerNorm(shape.output, eps=shape.eps)
            self.mlp = MLP(
                TransformerShape(shape.output, 1, shape.heads, shape.mlp_width, shape.activation)
            )

    def forward(self, x: Tensor) -> Tensor:  # [B, L, W] → [B, O]
        if self.input_norm is not None:
            x = self.input_norm(x)
        k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # [B, H, L, d]
            for part in linear(x, self.kv_weight, self.kv_bias).chunk(2, dim=-1)
        )
        q = self.query.to(k.dtype).view(self.heads, 1, -1)
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)  # [B, H, 1, L]
        attended = (scores.softmax(dim=-1) @ v).flatten(1)  # [B, E]
        pooled = linear(attended, self.out_proj.weight, self.out_proj.bias)
        if self.mlp is None or self.norm is None:
            return pooled
        return pooled + self.mlp(self.norm(pooled.to(self.norm.weight.dtype)))

    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices in `dtype`; products are computed in it."""
        self.out_proj.to(dtype)
        for parameter in (self.kv_weight, self.kv_bias):
            parameter.data = parameter.data.to(dtype)
        if self.mlp is not None:
            self.mlp.to(dtype)


def projected_query(probe: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """W · probe + b [E] of a learned probe [W], a matrix [E, W] and a bias [E], in fp32.

    Each sum is rounded once, at its end, so that the weights have one hash on every machine: what
    a matrix product gives depends on the processor, and on where in memory its factors lie.
    """
    if weight.is_meta:  # it is only looked at
        return torch.empty(len(weight), device="meta")
    terms = torch.cat([weight.double() * probe.double(), bias.double()[:, None]], dim=1)
    return torch.tensor([math.fsum(row.tolist()) for row in terms])
