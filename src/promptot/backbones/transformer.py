"""The transformer block that both towers are made of: pre-norm, as in CLIP."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class QuickGELU(nn.Module):
    """CLIP's approximation of GELU: x · sigmoid(1.702 x)."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, type[nn.Module]] = {"gelu": nn.GELU, "quick_gelu": QuickGELU}


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
        q, k, v = F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)
        return q, k, v

    def project_queries(self, x: Tensor) -> Tensor:
        """Only the queries [..., L, W] of `x` [..., L, W]."""
        width = x.shape[-1]
        return F.linear(x, self.in_proj_weight[:width], self.in_proj_bias[:width])

    def project_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Only the keys and values, each [..., L, W], of `x` [..., L, W]."""
        width = x.shape[-1]
        k, v = F.linear(x, self.in_proj_weight[width:], self.in_proj_bias[width:]).chunk(2, dim=-1)
        return k, v

    def split_heads(self, x: Tensor) -> Tensor:
        """[..., L, W] → [..., H, L, W / H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """[..., H, L, W / H] → [..., L, W]."""
        return x.transpose(-3, -2).flatten(-2)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False) -> Tensor:
        """Let queries [B, Lq, W] attend to keys and values [B, Lk, W]; gives [B, Lq, W]."""
        out = F.scaled_dot_product_attention(
            self.split_heads(q), self.split_heads(k), self.split_heads(v), is_causal=causal
        )
        return self.out_proj(self.merge_heads(out))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x))."""

    def __init__(
        self, width: int, heads: int, mlp_width: int, activation: str, eps: float = 1e-5
    ) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        self.attn = Attention(width, heads)
        self.ln_2 = nn.LayerNorm(width, eps=eps)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, mlp_width))
        self.mlp.add_module("act", ACTIVATIONS[activation]())
        self.mlp.add_module("c_proj", nn.Linear(mlp_width, width))

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
