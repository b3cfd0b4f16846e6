"""How many bytes a pass through a tower keeps for its backward pass, by its shapes."""

from __future__ import annotations

from collections.abc import Sequence

from promptot.backbones.injection import Injection
from promptot.backbones.low_rank import Deltas
from promptot.backbones.towers.packing import PackedText
from promptot.backbones.towers.transformer import Transformer

# Tensors of one token's width that the backward pass keeps in each block. In fp32: the inputs of
# both norms. In the precision of the matrices: queries, keys, values; the image tower also keeps
# the attended values.
RESIDUAL_TENSORS = 2
IMAGE_TENSORS = 4
TEXT_TENSORS = 3
TILED_TENSORS = 4  # queries, keys, values, and the attended values


def image_bytes(transformer: Transformer, patches: int, batch: int, injection: Injection) -> int:
    """Of B · (1 + N + m) tokens in each block; nothing is kept where no token learns."""
    if not injection.changes_images:
        return 0
    prompts = injection.image_tokens[0].shape[-2] if injection.image_tokens else 0
    tokens = batch * (1 + patches + prompts)
    kept = _transformer_bytes(transformer, tokens, IMAGE_TENSORS)
    return kept + delta_bytes(tokens, injection.image_deltas)


def text_bytes(
    transformer: Transformer,
    text: PackedText,
    injection: Injection,
    images: int,
    tiled: bool = False,
) -> int:
    """Of the shared prefix once and the own tokens of each class, and of the attention weights.

    All of that once for each of B images where the text depends on the image.

    Args:
        tiled: whether attention is computed in tiles, which keep no weights.
    """
    if not injection.changes_text:
        return 0
    shared, prefixes = len(text.prefix), 1
    if injection.text_tokens:
        context = injection.text_tokens[0]
        shared += context.shape[-2]
        prefixes = context.shape[0] if context.dim() == 3 else 1
    tokens = text.tokens + shared * prefixes
    passes = 1 if injection.text_shift is None else images
    changes = delta_bytes(tokens, injection.text_deltas)
    if tiled:
        return passes * (_tiled_bytes(transformer, text, prefixes, shared) + changes)
    pairs = sum(g.classes * g.length * (g.length + shared) for g in text.groups)
    block, blocks = transformer.blocks[0], len(transformer.blocks)
    weights = blocks * pairs * block.attn.heads * (4 + 2 * block.element_size)
    return passes * (_transformer_bytes(transformer, tokens, TEXT_TENSORS) + weights + changes)


def delta_bytes(tokens: int, deltas: Sequence[Deltas]) -> int:
    """What low-rank changes keep of what they multiply, in fp32, and which entries they dropped."""
    own = (delta for block in deltas for delta in block.values())
    return tokens * sum(4 * d.down.shape[1] * (2 if d.dropout else 1) for d in own)


def _tiled_bytes(transformer: Transformer, text: PackedText, prefixes: int, shared: int) -> int:
    """Of all places, and of the keys and values that each tile has beside them."""
    block, blocks = transformer.blocks[0], len(transformer.blocks)
    tiles = text.tiles(prefixes, shared, block.mlp.c_fc.weight.dtype)
    width, places = block.mlp.c_fc.in_features, len(tiles.rows)
    copies = len(tiles.keys) * 2 * width * block.element_size
    last = places * TILED_TENSORS * width * block.element_size  # all of them attend there too
    return _transformer_bytes(transformer, places, TILED_TENSORS) + blocks * copies + last


def padded_text_bytes(transformer: Transformer, tokens: int, whole: bool = False) -> int:
    """Of all tokens in each block; PyTorch's attention keeps its result and no weights.

    Args:
        whole: whether the last block is computed at all positions.
    """
    block = transformer.blocks[0]
    width = block.mlp.c_fc.in_features
    found = _transformer_bytes(transformer, tokens, IMAGE_TENSORS)
    if block.norms != "before":  # what such a block's branches give is kept too
        found += tokens * len(transformer.blocks) * width * 4
    if whole:
        hidden = block.mlp.c_fc.out_features
        found += tokens * (width * 4 + (2 * width + hidden) * block.element_size)
    return found


def _transformer_bytes(transformer: Transformer, tokens: int, tensors: int) -> int:
    block = transformer.blocks[0]
    width, hidden = block.mlp.c_fc.in_features, block.mlp.c_fc.out_features
    per_token = RESIDUAL_TENSORS * width * 4 + (tensors * width + hidden) * block.element_size
    last = width * 4 + 2 * width * block.element_size  # only keys and values: one query is read
    return tokens * ((len(transformer.blocks) - 1) * per_token + last)
