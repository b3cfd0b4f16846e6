"""The blocks over packed texts that lie in tiles from the first on: for GPUs."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from promptot.backbones.towers.packed_blocks import PackedRows
from promptot.backbones.towers.packing import PackedText
from promptot.backbones.towers.tiled_attention import attend_tiles, works_on
from promptot.backbones.towers.transformer import Block, Transformer


def suit_tiles(transformer: Transformer) -> bool:
    """Whether its device computes tiles faster than groups."""
    matrix = transformer.blocks[0].attn.in_proj_weight
    return works_on(matrix.device, matrix.dtype)


def read_by_tiles(
    blocks: Sequence[Block], rows: PackedRows, context: Sequence[Tensor], text: PackedText
) -> Tensor:
    """What `read_by_groups` returns, with one kernel for all attention of a block."""
    *_, last = blocks
    prefixes, kept = rows.prefixes, len(text.prefix)
    tiles = text.tiles(prefixes, rows.length, last.attn.in_proj_weight.dtype)
    x = rows.values.index_select(0, tiles.rows)
    for depth, block in enumerate(blocks):
        if 0 < depth < len(context):
            x = tiles.replace_context(x, context[depth].expand(prefixes, -1, -1), kept)
        qkv = block.attn.project_together(block.ln_1(x))
        attended = attend_tiles(qkv, tiles, block.attn.heads)
        if block is last:
            ends = tiles.places.index_select(0, text.ends + prefixes * rows.length)
            x, attended = x.index_select(0, ends), attended.index_select(0, ends)
        x = block.finish(x, attended)
    return x
