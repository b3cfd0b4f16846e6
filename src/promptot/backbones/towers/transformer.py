"""The transformer block that both towers are made of: as in CLIP, and as in its successors.

The matrices may be stored in bf16 while the residual stream and the norms stay in fp32; a product,
and the attention on its results, is computed in the precision of its matrix.
"""

from __future__ import annotations

from itertools import chain

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.backbones.architecture import TransformerShape
from promptot.backbones.towers.feed_forward import (
    ACTIVATIONS,
    FrozenFeedForward,
    FrozenGatedFeedForward,
)
from promptot.backbones.towers.frozen_attention import FrozenAttention, works_on
from promptot.backbones.towers.products import linear
from promptot.backbones.towers.rotation import rotate

NORM_PLACES = ("before", "branch", "after")


class Attention(nn.Module):
    """Multi-head attention, split so that a caller can choose who attends to what.

    Parameter names and layouts are those of `torch.nn.MultiheadAttention`.

    Args:
        norm_eps: of a norm on what was attended, before the output projection; None for no norm.
    """

    def __init__(self, width: int, heads: int, norm_eps: float | None = None) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.norm: nn.LayerNorm | None
        norm = None if norm_eps is None else nn.LayerNorm(width, eps=norm_eps)
        self.register_module("norm", norm)
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)

    def project(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values, each [..., L, W], of `x` [..., L, W]."""
        q, k, v = self.project_together(x).chunk(3, dim=-1)
        return q, k, v

    def project_together(self, x: Tensor) -> Tensor:
        """The same beside each other, [..., L, 3 W]."""
        return self._product(x, self.in_proj_weight, self.in_proj_bias, "q", "k", "v")

    def project_queries(self, x: Tensor) -> Tensor:
        """Only the queries [..., L, W] of `x` [..., L, W]."""
        width = x.shape[-1]
        return self._product(x, self.in_proj_weight[:width], self.in_proj_bias[:width], "q")

    def project_keys_values(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Only the keys and values, each [..., L, W], of `x` [..., L, W]."""
        width = x.shape[-1]
        weight, bias = self.in_proj_weight[width:], self.in_proj_bias[width:]
        k, v = self._product(x, weight, bias, "k", "v").chunk(2, dim=-1)
        return k, v

    def project_output(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        normed = x if self.norm is None else self.norm(x.to(self.norm.weight.dtype))
        return self._product(normed, self.out_proj.weight, self.out_proj.bias, "o")

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, *names: str) -> Tensor:
        """x Wᵀ + b of the matrices with these names (see `MATRICES`), below each other in W."""
        return linear(x, weight, bias)

    def split_heads(self, x: Tensor) -> Tensor:
        """[..., L, W] → [..., H, L, W / H]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(-3, -2)

    def merge_heads(self, x: Tensor) -> Tensor:
        """[..., H, L, W / H] → [..., L, W]."""
        return x.transpose(-3, -2).flatten(-2)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        *,
        causal: bool = False,
        rotation: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """Let queries [B, Lq, W] attend to keys and values [B, Lk, W].

        Args:
            causal: whether each looks only at those up to its own place.
            rotation: see `rotate`; of the keys, and of the queries, which are the first of them.
            visible: True where a query may look, broadcast to [B, H, Lq, Lk].

        Returns:
            [B, Lq, W], heads merged, before the output projection.
        """
        q, k, v = self.split_heads(q), self.split_heads(k), self.split_heads(v)
        if rotation is not None:
            q, k = rotate(q, rotation), rotate(k, rotation)
        if _attends_by_products(q) and not causal:
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            if visible is not None:
                scores = scores.masked_fill(~visible, float("-inf"))
            out = scores.softmax(dim=-1) @ v
        else:
            out = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal)
        return self.merge_heads(out)


def _attends_by_products(q: Tensor) -> bool:
    """Whether two products and a softmax are better than PyTorch's fused attention.

    On a CPU the fused kernel is twice as slow in bf16. On CUDA the backward pass of the fused ones
    adds up in an order that differs from run to run, except over few keys in 16 bits.
    """
    if q.device.type == "cpu":
        return q.dtype in (torch.bfloat16, torch.float16)
    return q.device.type == "cuda" and q.requires_grad


class MLP(nn.Module):
    """Two linear layers around an activation.

    Args:
        shape: its `activation`, `gated`, `mlp_norm`, sizes and ε count.
    """

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        width, hidden = shape.width, shape.mlp_width
        if shape.activation not in ACTIVATIONS:
            raise ValueError(
                f"activation must be one of {[*ACTIVATIONS]}, not {shape.activation!r}"
            )
        self.activation = shape.activation
        self.c_fc = nn.Linear(width, hidden)
        self.gate: nn.Linear | None
        self.register_module("gate", nn.Linear(width, hidden) if shape.gated else None)
        norms = {None: 0, "input": width, "hidden": hidden}
        norm = nn.LayerNorm(norms[shape.mlp_norm], eps=shape.eps) if shape.mlp_norm else None
        self.input_norm: nn.LayerNorm | None
        self.hidden_norm: nn.LayerNorm | None
        self.register_module("input_norm", norm if shape.mlp_norm == "input" else None)
        self.register_module("hidden_norm", norm if shape.mlp_norm == "hidden" else None)
        self.c_proj = nn.Linear(hidden, width)

    @property
    def plain(self) -> bool:
        """Whether it is CLIP's: an activation between two products and nothing else."""
        return self.gate is None and self.input_norm is None and self.hidden_norm is None

    @property
    def more(self) -> tuple[Tensor | None, ...]:
        """What `FrozenGatedFeedForward` is given beyond what a plain one is."""
        gate, before, behind = self.gate, self.input_norm, self.hidden_norm
        pairs = (
            (m.weight, m.bias) if m is not None else (None, None) for m in (gate, before, behind)
        )
        return tuple(chain.from_iterable(pairs))

    def forward(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        if self.input_norm is not None:
            x = self.input_norm(x)
        hidden = self._product(x, self.c_fc.weight, self.c_fc.bias, "fc")
        activate = ACTIVATIONS[self.activation]
        if self.gate is None:
            active = activate(hidden)
        else:
            active = activate(linear(x, self.gate.weight, self.gate.bias)) * hidden
        if self.hidden_norm is not None:
            active = self.hidden_norm(active.to(self.hidden_norm.weight.dtype))
        return self._product(active, self.c_proj.weight, self.c_proj.bias, "proj")

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, *names: str) -> Tensor:
        """As `Attention` has it."""
        return linear(x, weight, bias)


class Block(nn.Module):
    """Attention, then an MLP, each added to the tokens; see `TransformerShape` for its kinds."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        if shape.norms not in NORM_PLACES:
            raise ValueError(f"norms must be one of {NORM_PLACES}, not {shape.norms!r}")
        self.norms = shape.norms
        self.ln_1 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.attn = Attention(shape.width, shape.heads, shape.eps if shape.attention_norm else None)
        self.ln_2 = nn.LayerNorm(shape.width, eps=shape.eps)
        self.mlp = MLP(shape)

    def forward(
        self,
        x: Tensor,
        kept: int | None = None,
        *,
        rotation: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """The block's output [B, L, W] of `x` [B, L, W], or only at the first `kept` positions.

        All positions are attended to either way.

        Args:
            rotation, visible: see `Attention.attend`.
        """
        if visible is not None and visible.shape[-2] > 1:
            visible = visible[..., :kept, :]
        if self._attends_at_once(x, visible):
            norm, attn = self.ln_1, self.attn
            inner = (None, None) if attn.norm is None else (attn.norm.weight, attn.norm.bias)
            mixed: Tensor = FrozenAttention.apply(
                x, x.shape[1] if kept is None else kept, attn.heads, norm.weight, norm.bias,
                norm.eps, attn.in_proj_weight, attn.in_proj_bias, attn.out_proj.weight,
                attn.out_proj.bias, *inner, rotation, visible,
            )  # fmt: skip
            return self.feed_forward(mixed)
        q, k, v = self.attn.project(self.read_by_attention(x))
        attended = self.attn.attend(q[:, :kept], k, v, rotation=rotation, visible=visible)
        return self.finish(x[:, :kept], attended)

    def read(
        self,
        x: Tensor,
        position: int | Tensor,
        *,
        rotation: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
        """The block's output at one position, [B, 1, W], without computing the others.

        Args:
            position: the same in all rows, or one a row, [B] long.
            rotation: of the keys; a position that is read is not rotated.
            visible: as for that position, broadcast to [B, H, 1, L].
        """
        source = self.read_by_attention(x)
        q = self.attn.project_queries(_at(source, position))
        k, v = self.attn.project_keys_values(source)
        if rotation is not None:
            k = self.attn.merge_heads(rotate(self.attn.split_heads(k), rotation))
        attended = self.attn.attend(q, k, v, visible=visible)
        return self.finish(_at(x, position), attended)

    def _attends_at_once(self, x: Tensor, visible: Tensor | None) -> bool:
        """Whether `FrozenAttention` computes it: frozen, norms before, on a CPU in fp32.

        On CUDA in 16 bits, where something is to learn: there the order of the sums matters.
        """
        weight = self.attn.in_proj_weight
        if weight.requires_grad or self.norms != "before" or torch.compiler.is_compiling():
            return False
        if x.device.type == "cuda" and (visible is not None or not x.requires_grad):
            return False
        size = weight.shape[1] // self.attn.heads
        return x.dtype == torch.float32 and works_on(x.device.type, weight.dtype, size)

    def read_by_attention(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        return self.ln_1(x) if self.norms == "before" else x

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """What the block makes of tokens `x` and of what they attended to, both [..., W]."""
        attended = self.attn.project_output(attended)
        if self.norms == "branch":
            x = x + self.ln_1(attended)
            return x + self.ln_2(self.mlp(x))
        if self.norms == "after":
            x = self.ln_1(x + attended)
            return self.ln_2(x + self.mlp(x))
        return self.feed_forward(x + attended)

    def feed_forward(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        """x + mlp(norm(x)), of a block whose norms are before."""
        norm, fc, proj = self.ln_2, self.mlp.c_fc, self.mlp.c_proj
        if any(p.requires_grad for p in (norm.weight, fc.weight, proj.weight)):
            return x + self.mlp(norm(x))
        frozen = FrozenFeedForward if self.mlp.plain else FrozenGatedFeedForward
        more = () if self.mlp.plain else self.mlp.more
        out: Tensor = frozen.apply(
            x, norm.weight, norm.bias, norm.eps, fc.weight, fc.bias, proj.weight, proj.bias,
            self.mlp.activation, *more,
        )  # fmt: skip
        return out

    @property
    def element_size(self) -> int:
        """Bytes of one element of the matrices, and of what is computed with them."""
        return self.mlp.c_fc.weight.element_size()

    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices and their biases in `dtype`; products are computed in it."""
        for module in (self.attn.out_proj, self.mlp.c_fc, self.mlp.gate, self.mlp.c_proj):
            if module is not None:
                module.to(dtype)
        for parameter in (self.attn.in_proj_weight, self.attn.in_proj_bias):
            parameter.data = parameter.data.to(dtype)


def _at(x: Tensor, position: int | Tensor) -> Tensor:
    """[B, L, W] → [B, 1, W] at one position, or at one a row."""
    if isinstance(position, int):
        return x[:, position, None]
    return x[torch.arange(len(x), device=x.device), position, None]


class Transformer(nn.Module):
    """A stack of blocks, named as in the OpenAI checkpoints (`resblocks`)."""

    def __init__(self, shape: TransformerShape) -> None:
        super().__init__()
        self.resblocks = nn.ModuleList(Block(shape) for _ in range(shape.layers))

    @property
    def blocks(self) -> list[Block]:
        return [block for block in self.resblocks if isinstance(block, Block)]

    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices of all blocks in `dtype`; products are computed in it."""
        for block in self.blocks:
            block.store_matrices(dtype)
