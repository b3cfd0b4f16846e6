"""CLIP's causal text tower, run only where its output depends on something.

Attention is causal and only the [EOS] position is read, so three things are exact and free:
positions after [EOS] are never computed; the positions that all classes share ([SOS], the learned
context) are computed once and serve every class as keys and values; and the classes' own tokens
are packed one after another instead of padded to the longest name.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from promptot.backbones.architecture import TextShape
from promptot.backbones.encoders import Packed, TextEncoder, TokenTable
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.towers.activations import text_bytes
from promptot.backbones.towers.adapted_block import adapted
from promptot.backbones.towers.packed_blocks import PackedRows, read_by_groups
from promptot.backbones.towers.packing import (
    PADDING_PER_GROUP,
    PADDING_PER_GROUP_ON_GPU,
    PackedText,
    pack,
)
from promptot.backbones.towers.per_image import repeat_for_images
from promptot.backbones.towers.tiled_blocks import read_by_tiles, suit_tiles
from promptot.backbones.towers.transformer import Transformer


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

    @property
    def mlp_width(self) -> int:
        return self.shape.transformer.mlp_width

    def store_matrices(self, dtype: torch.dtype) -> None:
        self.transformer.store_matrices(dtype)

    def pack(self, sequences: Sequence[Sequence[int]], *, prompted: bool = False) -> PackedText:
        """What all names share counts as the prefix; [SOS] alone where learned tokens follow it."""
        device = self.positional_embedding.device
        if not prompted:
            return pack(sequences).to(device)
        if suit_tiles(self.transformer):
            return pack(sequences, shared=1, padding=0).to(device)
        padding = PADDING_PER_GROUP if device.type == "cpu" else PADDING_PER_GROUP_ON_GPU
        return pack(sequences, shared=1, padding=padding).to(device)

    def add_words(self, packed: Packed, words: TokenTable) -> PackedText:
        return _own(packed).with_words(words)

    def activation_bytes(self, packed: Packed, injection: Injection, images: int) -> int:
        tiled = suit_tiles(self.transformer)
        return text_bytes(self.transformer, _own(packed), injection, images, tiled)

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
        shared = prefix.shape[1]
        prefix = prefix + self.positional_embedding[:shared]
        positions = self.positional_embedding[shared + text.offsets]
        suffix = self.token_embedding(text.suffixes) + positions  # [T, W]

        rows = PackedRows(torch.cat([prefix.flatten(0, 1), suffix]), len(prefix), shared)
        read = read_by_tiles if suit_tiles(self.transformer) else read_by_groups
        blocks = adapted(self.transformer.blocks, injection.text_deltas)
        ends = read(blocks, rows, context, text)  # [C, W]

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
