"""The transformer block that both towers are made of: pre-norm, as in CLIP.

The matrices may be stored in bf16 while the residual stream and the norms stay in fp32; a product,
and the attention on its results, is computed in the precision of its matrix.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUICK_GELU_SCALE = 1.702
ACTIVATIONS = ("gelu", "quick_gelu")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`F.linear` in the precision of the weight."""
    return F.linear(x.to(weight.dtype), weight, bias)


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
        """Let queries [B, Lq, W] attend to keys and values [B, Lk, W]; gives [B, Lq, W]."""
        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
        if q.dtype == torch.bfloat16 and q.device.type == "cpu" and not causal:
            # the CPU's fused kernel is twice as slow in bf16 as two products and a softmax
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            out = scores.softmax(dim=-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.project_output(self.merge_heads(out))


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
        fc, proj = self.c_fc, self.c_proj
        if fc.weight.requires_grad or proj.weight.requires_grad:
            hidden = fc(x)
            hidden = (
                hidden * torch.sigmoid(QUICK_GELU_SCALE * hidden) if self.quick else F.gelu(hidden)
            )
            return proj(hidden)
        rows = x.flatten(0, -2).to(fc.weight.dtype)
        out: Tensor = _FrozenMLP.apply(rows, fc.weight, fc.bias, proj.weight, proj.bias, self.quick)
        return out.unflatten(0, x.shape[:-1])


class _FrozenMLP(torch.autograd.Function):
    """The same MLP when its weights are constants: fewer passes, and one tensor kept for backward.

    With a = 1.702, QuickGELU(x) = silu(a x) / a, whose derivative is silu'(a x). Both factors ride
    along in the matrix products, so that the activation is one kernel forward and one backward.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [T, W]
        fc_weight: Tensor,
        fc_bias: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
        quick: bool,
    ) -> Tensor:
        scale = QUICK_GELU_SCALE if quick else 1.0
        hidden = torch.addmm(fc_bias, x, fc_weight.T, beta=scale, alpha=scale)  # a · fc(x)
        ctx.save_for_backward(hidden, fc_weight, proj_weight)
        ctx.quick = quick
        active = F.silu(hidden) if quick else F.gelu(hidden)
        return torch.addmm(proj_bias, active, proj_weight.T, alpha=1 / scale)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        hidden, fc_weight, proj_weight = ctx.saved_tensors
        gradient = gradients[0].to(proj_weight.dtype) @ proj_weight
        backward = torch.ops.aten.silu_backward if ctx.quick else torch.ops.aten.gelu_backward
        return backward(gradient, hidden) @ fc_weight, None, None, None, None, None


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

    def forward(self, x: Tensor) -> Tensor:  # [B, L, W] → [B, L, W]
        q, k, v = self.attn.project(self.ln_1(x))
        return self.feed_forward(x + self.attn.attend(q, k, v))

    def read(self, x: Tensor, position: int) -> Tensor:
        """The block's output at one position, [B, 1, W], without computing the others."""
        normed = self.ln_1(x)
        chosen = slice(position, position + 1)
        q = self.attn.project_queries(normed[:, chosen])
        k, v = self.attn.project_keys_values(normed)
        return self.feed_forward(x[:, chosen] + self.attn.attend(q, k, v))

    def feed_forward(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        return x + self.mlp(self.ln_2(x))

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
