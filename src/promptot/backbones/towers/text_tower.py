"""CLIP's causal text tower, run only where its output depends on something.

Attention is causal and only the [EOS] position is read, so three things are exact and free:
positions after [EOS] are never computed; the positions that all classes share ([SOS], the learned
context) are computed once and serve every class as keys and values; and the classes' own tokens
are packed one after another instead of padded to the longest name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import TextShape
from promptot.backbones.encoders import Packed, TextEncoder, TokenTable
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.towers.activations import text_bytes
from promptot.backbones.towers.packed_attention import attend_packed
from promptot.backbones.towers.packing import (
    PADDING_PER_GROUP,
    PADDING_PER_GROUP_ON_GPU,
    LengthGroup,
    PackedText,
    pack,
)
from promptot.backbones.towers.per_image import repeat_for_images
from promptot.backbones.towers.transformer import Block, Transformer


class TextTower(TextEncoder):
    """Causal transformer over class names that share a prefix.

    Args:
        shape: numbers of tokens and positions, and the transformer's sizes.
        embed_dim: size D of the features.
    """

    def __init__(self, shape: TextShape, embed_dim: int) -> None:
        super().__init__()
        assert shape.transformer.norms == "before", "the packed blocks are CLIP's"
        self.shape = shape
        self.width = width = shape.transformer.width
        self.context_length = length = shape.context_length
        self.token_embedding = nn.Embedding(shape.vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(length, width) * 0.01)
        self.transformer = Transformer(shape.transformer)
        self.ln_final = nn.LayerNorm(width, eps=shape.transformer.eps)
        matrix = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)
        self.text_projection = matrix if shape.projection else None
        bias = nn.Parameter(torch.zeros(embed_dim)) if shape.projection_bias else None
        self.projection_bias = bias

    @property
    def layers(self) -> int:
        return len(self.transformer.resblocks)

    def store_matrices(self, dtype: torch.dtype) -> None:
        self.transformer.store_matrices(dtype)

    def pack(self, sequences: Sequence[Sequence[int]], *, prompted: bool = False) -> PackedText:
        """What all names share counts as the prefix; [SOS] alone where learned tokens follow it."""
        device = self.positional_embedding.device
        if not prompted:
            return pack(sequences).to(device)
        padding = PADDING_PER_GROUP if device.type == "cpu" else PADDING_PER_GROUP_ON_GPU
        return pack(sequences, shared=1, padding=padding).to(device)

    def add_words(self, packed: Packed, words: TokenTable) -> PackedText:
        return _own(packed).with_words(words)

    def activation_bytes(self, packed: Packed, injection: Injection, images: int) -> int:
        return text_bytes(self.transformer, _own(packed), injection, images)

    def encode(self, packed: Packed, injection: Injection = FROZEN) -> Tensor:
        """Features [C, D], not normalised, in the order of the class names.

        The first of the injected tokens, [n, W] or, class-specific, [C, n, W], are inserted after
        the packed prefix (and are given position embeddings); those of each later block replace
        them there. With one context an image, [B, n, W], the features are [B, C, D].
        """
        text = _own(packed)
        if injection.images is not None:
            text = repeat_for_images(text, injection.images)
        context = [_packed_order(tokens, text) for tokens in injection.text_tokens]
        prefix = self.token_embedding(text.prefix).unsqueeze(0)  # [1, P, W]
        if context:
            prefix = _join(prefix, context[0])  # [1 or C, P + n, W]
        kept, shared = len(text.prefix), prefix.shape[1]
        prefix = prefix + self.positional_embedding[:shared]
        positions = self.positional_embedding[shared + text.offsets]
        suffix = self.token_embedding(text.suffixes) + positions  # [T, W]

        rows = _Rows(torch.cat([prefix.flatten(0, 1), suffix]), len(prefix), shared)
        *blocks, last = self.transformer.blocks
        for depth, block in enumerate(blocks):
            rows = _replace(rows, context, depth, kept)
            rows = _shared_prefix_block(block, rows, text.groups)
        rows = _replace(rows, context, len(blocks), kept)
        ends = _read_ends(last, rows, text)  # [C, W]

        features = self.ln_final(ends)
        if self.text_projection is not None:
            features = features @ self.text_projection
        if self.projection_bias is not None:
            features = features + self.projection_bias
        return text.unsort(features)


def _own(packed: Packed) -> PackedText:
    assert isinstance(packed, PackedText), "this tower packed it"
    return packed


def _packed_order(tokens: Tensor, text: PackedText) -> Tensor:
    return tokens[text.order] if tokens.dim() == 3 else tokens.unsqueeze(0)


def _join(prefix: Tensor, context: Tensor) -> Tensor:
    return torch.cat([prefix.expand(len(context), -1, -1), context], dim=1)


@dataclass(frozen=True)
class _Rows:
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


def _replace(rows: _Rows, context: Sequence[Tensor], depth: int, kept: int) -> _Rows:
    """Put the context that belongs to block `depth` behind the first `kept` positions."""
    if depth == 0 or depth >= len(context):
        return rows
    prefix, own = rows.split(rows.values)
    new = context[depth].expand(rows.prefixes, -1, -1)
    prefix = torch.cat([prefix[:, :kept], new], dim=1).flatten(0, 1)
    return replace(rows, values=torch.cat([prefix, own]))


def _shared_prefix_block(block: Block, rows: _Rows, groups: Sequence[LengthGroup]) -> _Rows:
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


def _read_ends(block: Block, rows: _Rows, text: PackedText) -> Tensor:
    """The last block's output at each class's [EOS], [C, W], which is all that is read."""
    attn = block.attn
    normed = block.ln_1(rows.values)
    (k_prefix, k), (v_prefix, v) = map(rows.split, attn.project_keys_values(normed))
    q = attn.project_queries(rows.split(normed)[1][text.ends])
    attended = attend_packed(q, k, v, k_prefix, v_prefix, attn.heads, text.groups, ends_only=True)
    own = rows.split(rows.values)[1]
    return block.finish(own[text.ends], attended)
