"""The transformer block that both towers are made of: pre-norm, as in CLIP.

The matrices may be stored in bf16 while the residual stream and the norms stay in fp32; a product,
and the attention on its results, is computed in the precision of its matrix.
"""

from __future__ import annotations

from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.backbones.towers.products import linear, product

QUICK_GELU_SCALE = 1.702
ACTIVATIONS = ("gelu", "quick_gelu")
ROWS_ON_CPU = 512
"""Rows that a frozen MLP computes at a time there: what lies between its products stays small and
in the cache. A GPU takes all at once."""


class Attention(nn.Module):
    """Multi-head attention, split so that a caller can choose who attends to what.

    Parameter names and layouts are those of `torch.nn.MultiheadAttention`.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [..., L, W], of `x` [..., L, W]."""
        q, k, v = linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return q, k, v

    def project_queries(self, x: Tensor) -> Tensor:
        """Only the queries [..., L, W] of `x` [..., L, W]."""
        width = x.shape[-1]
        return linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])

    def project_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Only the keys and values, each [..., L, W], of `x` [..., L, W]."""
        width = x.shape[-1]
        k, v = linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        return k, v

    def project_output(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        return linear(x, self.out_proj.weight, self.out_proj.bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """[..., L, W] → [..., H, L, W / H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """[..., H, L, W / H] → [..., L, W]."""
        return x.transpose(-3, -2).flatten(-2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
        """Let queries [B, Lq, W] attend to keys and values [B, Lk, W].

        Returns:
            [B, Lq, W], heads merged, before the output projection.
        """
        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
        if _attends_by_products(q) and not causal:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            out = scores.softmax(dim=-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.merge_heads(out)


def _attends_by_products(q: Tensor) -> bool:
    """Whether two products and a softmax are better than PyTorch's fused attention.

    On a CPU the fused kernel is twice as slow in bf16. On CUDA its backward pass in fp32 adds up in
    an order that differs from run to run; in bf16 it does not.
    """
    if q.device.type == "cpu":
        return q.dtype == torch.bfloat16
    return q.device.type == "cuda" and q.dtype == torch.float32 and q.requires_grad


class MLP(nn.Module):
    """Two linear layers around GELU or CLIP's QuickGELU, x · sigmoid(1.702 x)."""

    def __init__(self, width: int, hidden: int, activation: str) -> None:
        super().__init__()
        if activation not in ACTIVATIONS:
            raise ValueError(f"activation must be one of {ACTIVATIONS}, not '{activation}'")
        self.quick = activation == "quick_gelu"
        self.c_fc = nn.Linear(width, hidden)
        self.c_proj = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        hidden = linear(x, self.c_fc.weight, self.c_fc.bias)
        active = hidden * torch.sigmoid(QUICK_GELU_SCALE * hidden) if self.quick else F.gelu(hidden)
        return linear(active, self.c_proj.weight, self.c_proj.bias)


class _FrozenFeedForward(torch.autograd.Function):
    """x + mlp(norm(x)) when the weights are constants: few passes, little kept for backward.

    With a = 1.702, QuickGELU(x) = silu(a x) / a, whose derivative is silu'(a x). The norm's weight
    carries the factor a in, and the residual sum takes it out again, so that the activation is one
    kernel forward and one backward; in the backward pass the two factors cancel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [..., W]
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        fc_weight: Tensor,
        fc_bias: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
        quick: bool,
    ) -> Tensor:
        a = QUICK_GELU_SCALE if quick else 1.0
        rows = x.reshape(-1, x.shape[-1])
        norm_weight_a, norm_bias_a, fc_bias_a, proj_bias_a = (
            a * constant for constant in (norm_weight, norm_bias, fc_bias, proj_bias)
        )
        out = torch.empty_like(rows)
        kept: list[list[Tensor]] = []
        for part, into in zip(_parts(rows), _parts(out), strict=True):
            normed, mean, rstd = torch.native_layer_norm(
                part, [part.shape[-1]], norm_weight_a, norm_bias_a, eps
            )
            hidden = product(normed, fc_weight, fc_bias_a)  # [..., 4W], a times that of the MLP
            if ctx.needs_input_grad[0]:
                kept.append([mean, rstd, hidden])
                active = F.silu(hidden) if quick else F.gelu(hidden)
            else:
                active = F.silu(hidden, inplace=True) if quick else F.gelu(hidden)
            torch.add(part, product(active, proj_weight, proj_bias_a), alpha=1 / a, out=into)
        if kept:
            ctx.save_for_backward(
                rows, norm_weight, norm_bias, fc_weight, proj_weight, *chain.from_iterable(kept)
            )
            ctx.quick = quick
        return out.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, norm_weight, norm_bias, fc_weight, proj_weight, *kept = ctx.saved_tensors
        backward = torch.ops.aten.silu_backward if ctx.quick else torch.ops.aten.gelu_backward
        gradient = gradients[0].reshape(rows.shape)
        out = torch.empty_like(rows)
        parts = zip(_parts(rows), _parts(gradient), _parts(out), strict=True)
        for number, (part, above, into) in enumerate(parts):
            mean, rstd, hidden = kept[3 * number : 3 * number + 3]
            below = backward(product(above, proj_weight.T), hidden)
            below = product(below, fc_weight.T).to(part.dtype)
            through_norm, _, _ = torch.ops.aten.native_layer_norm_backward(
                below, part, [part.shape[-1]], mean, rstd, norm_weight, norm_bias,
                [True, False, False],
            )  # fmt: skip
            torch.add(above, through_norm, out=into)
        return out.view_as(gradients[0]), *[None] * 8


def _parts(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(ROWS_ON_CPU if rows.device.type == "cpu" else max(1, len(rows)))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, width: int, heads: int, mlp_width: int, activation: str, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = MLP(width, mlp_width, activation)

    def forward(self, x: Tensor, kept: int | None = None) -> Tensor:
        """The block's output [B, L, W] of `x` [B, L, W], or only at the first `kept` positions.

        All positions are attended to either way.
        """
        q, k, v = self.attn.project(self.ln_1(x))
        attended = self.attn.attend(q[:, :kept], k, v)
        return self.feed_forward(x[:, :kept] + self.attn.project_output(attended))

    def read(self, x: Tensor, position: int) -> Tensor:
        """The block's output at one position, [B, 1, W], without computing the others."""
        normed = self.ln_1(x)
        chosen = slice(position, position + 1)
        q = self.attn.project_queries(normed[:, chosen])
        k, v = self.attn.project_keys_values(normed)
        attended = self.attn.project_output(self.attn.attend(q, k, v))
        return self.feed_forward(x[:, chosen] + attended)

    def feed_forward(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        norm, fc, proj = self.ln_2, self.mlp.c_fc, self.mlp.c_proj
        if any(parameter.requires_grad for parameter in (norm.weight, fc.weight, proj.weight)):
            return x + self.mlp(norm(x))
        out: Tensor = _FrozenFeedForward.apply(
            x, norm.weight, norm.bias, norm.eps, fc.weight, fc.bias, proj.weight, proj.bias,
            self.mlp.quick,
        )  # fmt: skip
        return out

    @property
    def element_size(self) -> int:
        """Bytes of one element of the matrices, and of what is computed with them."""
        return self.mlp.c_fc.weight.element_size()

    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices and their biases in `dtype`; products are computed in it."""
        for module in (self.attn.out_proj, self.mlp.c_fc, self.mlp.c_proj):
            module.to(dtype)
        for parameter in (self.attn.in_proj_weight, self.attn.in_proj_bias):
            parameter.data = parameter.data.to(dtype)


class Transformer(nn.Module):
    """A stack of blocks, named as in the OpenAI checkpoints (`resblocks`)."""

    def __init__(
        self,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        activation: str,
        eps: float = 1e-5,
    ) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(
            Block(width, heads, mlp_width, activation, eps) for _ in range(layers)
        )

    @property
    def blocks(self) -> list[Block]:
        return [block for block in self.resblocks if isinstance(block, Block)]

    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices of all blocks in `dtype`; products are computed in it."""
        for block in self.blocks:
            block.store_matrices(dtype)
