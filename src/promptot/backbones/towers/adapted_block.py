"""A block whose frozen matrices have low-rank changes: the weights stay, the student adds to them.

It takes the single steps, not `FrozenAttention` and `FrozenFeedForward`, where a change is.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from promptot.backbones.low_rank import Deltas
from promptot.backbones.towers.products import linear
from promptot.backbones.towers.transformer import MLP, Attention, Block


def adapted(blocks: Sequence[Block], deltas: Sequence[Deltas]) -> list[Block]:
    """The blocks, those of them that have changes with these.

    Args:
        deltas: of each block, or none at all.
    """
    if not deltas:
        return list(blocks)
    pairs = zip(blocks, deltas, strict=True)
    return [AdaptedBlock(block, own) if own else block for block, own in pairs]


class _Adds(nn.Module):
    """Adds what was learned to products with frozen matrices."""

    deltas: Deltas

    def _product(self, x: Tensor, weight: Tensor, bias: Tensor | None, *names: str) -> Tensor:
        product = linear(x, weight, bias)
        if not any(name in self.deltas for name in names):
            return product
        own = product.shape[-1] // len(names)
        parts = [
            self.deltas[name](x) if name in self.deltas else x.new_zeros(*x.shape[:-1], own)
            for name in names
        ]
        added = parts[0] if len(parts) == 1 else torch.cat(parts, dim=-1)
        return product + added.to(product.dtype)


class AdaptedAttention(_Adds, Attention):
    """The same parameters, and what is added to their products."""

    def __init__(self, attn: Attention, deltas: Deltas) -> None:
        nn.Module.__init__(self)
        self.heads, self.norm, self.out_proj = attn.heads, attn.norm, attn.out_proj
        self.in_proj_weight, self.in_proj_bias = attn.in_proj_weight, attn.in_proj_bias
        self.deltas = deltas


class AdaptedMLP(_Adds, MLP):
    """The same parameters, and what is added to their products."""

    def __init__(self, mlp: MLP, deltas: Deltas) -> None:
        nn.Module.__init__(self)
        self.activation, self.c_fc, self.c_proj = mlp.activation, mlp.c_fc, mlp.c_proj
        self.gate, self.input_norm, self.hidden_norm = mlp.gate, mlp.input_norm, mlp.hidden_norm
        self.deltas = deltas


class AdaptedBlock(Block):
    """The norms of a block, and its attention and MLP with changes."""

    def __init__(self, block: Block, deltas: Deltas) -> None:
        nn.Module.__init__(self)
        self.norms, self.ln_1, self.ln_2 = block.norms, block.ln_1, block.ln_2
        self.attn = AdaptedAttention(block.attn, deltas)
        changed = "fc" in deltas or "proj" in deltas
        self.mlp = AdaptedMLP(block.mlp, deltas) if changed else block.mlp

    def _attends_at_once(self, x: Tensor, visible: Tensor | None) -> bool:
        return False

    def feed_forward(self, x: Tensor) -> Tensor:  # [..., W] → [..., W]
        if isinstance(self.mlp, AdaptedMLP):
            return x + self.mlp(self.ln_2(x))
        return super().feed_forward(x)
