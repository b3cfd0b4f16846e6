"""The blocks over packed texts: prefixes once, then the classes' own tokens, group by group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from promptot.backbones.towers.packed_attention import attend_packed
from promptot.backbones.towers.packing import LengthGroup, PackedText
from promptot.backbones.towers.transformer import Block


@dataclass(frozen=True)
class PackedRows:
    """All tokens below each other, so that a matrix meets them in one product.

    Attributes:
        values: [G · P + T, W]: G prefixes (one, or one a class), then all classes' own tokens.
        prefixes: G.
        length: P.
    """

    values: Tensor
    prefixes: int
    length: int

    def split(self, values: Tensor) -> tuple[Tensor, Tensor]:
        """`values` [G · P + T, ·] → those of the prefixes [G, P, ·] and of the classes [T, ·]."""
        shared = self.prefixes * self.length
        prefix, own = values.split([shared, len(values) - shared])
        return prefix.unflatten(0, (self.prefixes, self.length)), own


def read_by_groups(
    blocks: Sequence[Block], rows: PackedRows, context: Sequence[Tensor], text: PackedText
) -> Tensor:
    """The blocks' output at each class's [EOS], [C, W].

    Args:
        rows: what the first block is given.
        context: what later blocks find behind the packed prefix, one for each from the second on
            (the first is in `rows`), [1 or G, n, W].
        text: what the rows are of.
    """
    kept = len(text.prefix)
    *others, last = blocks
    for depth, block in enumerate(others):
        rows = _replace(rows, context, depth, kept)
        rows = _shared_prefix_block(block, rows, text.groups)
    return _read_ends(last, _replace(rows, context, len(others), kept), text)


def _replace(rows: PackedRows, context: Sequence[Tensor], depth: int, kept: int) -> PackedRows:
    """Put the context that belongs to block `depth` behind the first `kept` positions."""
    if depth == 0 or depth >= len(context):
        return rows
    prefix, own = rows.split(rows.values)
    new = context[depth].expand(rows.prefixes, -1, -1)
    prefix = torch.cat([prefix[:, :kept], new], dim=1).flatten(0, 1)
    return replace(rows, values=torch.cat([prefix, own]))


def _shared_prefix_block(
    block: Block, rows: PackedRows, groups: Sequence[LengthGroup]
) -> PackedRows:
    """One block over the prefixes and the packed classes."""
    attn = block.attn
    (q_prefix, q), (k_prefix, k), (v_prefix, v) = map(
        rows.split, attn.project(block.ln_1(rows.values))
    )
    attended = torch.cat(
        [
            attn.attend(q_prefix, k_prefix, v_prefix, causal=True).flatten(0, 1),
            attend_packed(q, k, v, k_prefix, v_prefix, attn.heads, groups),
        ]
    )
    return replace(rows, values=block.finish(rows.values, attended))


def _read_ends(block: Block, rows: PackedRows, text: PackedText) -> Tensor:
    """The last block's output at each class's [EOS], [C, W], which is all that is read."""
    attn = block.attn
    normed = block.ln_1(rows.values)
    (k_prefix, k), (v_prefix, v) = map(rows.split, attn.project_keys_values(normed))
    q = attn.project_queries(rows.split(normed)[1][text.ends])
    attended = attend_packed(q, k, v, k_prefix, v_prefix, attn.heads, text.groups, ends_only=True)
    own = rows.split(rows.values)[1]
    return block.finish(own[text.ends], attended)
