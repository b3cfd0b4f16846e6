"""The frozen attention part of a block on a CPU: x + attention(norm(x)) with constant weights.

What autograd makes of the single steps is right too, and moves more memory: a copy for each of
queries, keys and values, zeros for what a slice left out, sums of gradients. Here the gradient is
written once into one buffer. The kernels are those that PyTorch's attention picks on a CPU, so the
results are the same to the bit.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from promptot.backbones.towers.feed_forward import norm_backward, norm_rows
from promptot.backbones.towers.products import product
from promptot.backbones.towers.rotation import turn

_aten = torch.ops.aten
AVAILABLE = all(
    hasattr(_aten, f"_scaled_dot_product_flash_attention_for_cpu{part}")
    for part in ("", "_backward")
)


class FrozenAttention(torch.autograd.Function):
    """The first `kept` positions of x + attention(norm(x)); all of `x` [B, L, W] is looked at."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept: int,
        heads: int,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        in_weight: Tensor,
        in_bias: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        inner_weight: Tensor | None,
        inner_bias: Tensor | None,
        rotation: Tensor | None,
        visible: Tensor | None,
    ) -> Tensor:
        normed, mean, rstd = norm_rows(x, norm_weight, norm_bias, eps)
        qkv = product(normed, in_weight, in_bias)
        q, k, v = (_heads(part, heads) for part in qkv.chunk(3, dim=-1))  # [B, H, L, d]
        if rotation is not None:
            q, k = turn(q, *rotation[:, : q.shape[-2]]), turn(k, *rotation[:, : k.shape[-2]])
        q = q[:, :, :kept]
        mask = None
        if visible is not None:
            mask = torch.zeros_like(visible, dtype=q.dtype).masked_fill_(~visible, float("-inf"))
        out, sums = _aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask)
        rows = out.transpose(1, 2).flatten(2)  # [B, kept, W]
        seen: list[Tensor] = []
        normed_rows = rows
        if inner_weight is not None:
            normed_rows, *seen = norm_rows(rows, inner_weight, inner_bias, eps)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(
                x, mean, rstd, q, k, v, out, sums, norm_weight, norm_bias, in_weight, out_weight,
                inner_weight, inner_bias, rotation, mask, *seen,
            )  # fmt: skip
        return x[:, :kept] + product(normed_rows, out_weight, out_bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, mean, rstd, q, k, v, out, sums, norm_weight, norm_bias, in_weight, out_weight,
         inner_weight, inner_bias, rotation, mask, *seen) = ctx.saved_tensors  # fmt: skip
        above = gradients[0]
        kept, length, heads = q.shape[2], k.shape[2], q.shape[1]
        below = product(above, out_weight.T)
        if inner_weight is not None:
            rows = out.transpose(1, 2).flatten(2)
            below = norm_backward(below, rows, seen, inner_weight, inner_bias)
        dq, dk, dv = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            _heads(below, heads), q, k, v, out, sums, 0.0, False, attn_mask=mask
        )
        if rotation is not None:
            dq, dk = (
                turn(part, rotation[0, : part.shape[-2]], -rotation[1, : part.shape[-2]])
                for part in (dq, dk)
            )
        together = x.new_empty(len(x), length, 3, heads, q.shape[-1])
        together[:, :kept, 0] = dq.transpose(1, 2)
        if kept < length:
            together[:, kept:, 0] = 0
        together[:, :, 1] = dk.transpose(1, 2)
        together[:, :, 2] = dv.transpose(1, 2)
        below = product(together.flatten(2), in_weight.T)
        found = norm_backward(below, x, (mean, rstd), norm_weight, norm_bias)
        found[:, :kept] += above
        return found, *[None] * 13


def _heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, W] → [B, H, L, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)
