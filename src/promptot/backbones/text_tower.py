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

from promptot.backbones.packing import LengthGroup, PackedText
from promptot.backbones.transformer import Attention, Block, Transformer


class TextTower(nn.Module):
    """Causal transformer over class names that share a prefix.

    Args:
        vocabulary: number of tokens.
        context_length: largest number of positions.
        width, layers, heads, mlp_width, activation, eps: of the transformer.
        embed_dim: size D of the features.
        projection_bias: whether the final projection has a bias.
    """

    def __init__(
        self,
        vocabulary: int,
        context_length: int,
        width: int,
        layers: int,
        heads: int,
        mlp_width: int,
        embed_dim: int,
        activation: str = "quick_gelu",
        eps: float = 1e-5,
        projection_bias: bool = False,
    ) -> None:
        super().__init__()
        self.width = width
        self.context_length = context_length
        self.token_embedding = nn.Embedding(vocabulary, width)
        self.positional_embedding = nn.Parameter(torch.randn(context_length, width) * 0.01)
        self.transformer = Transformer(width, layers, heads, mlp_width, activation, eps)
        self.ln_final = nn.LayerNorm(width, eps=eps)
        self.text_projection = nn.Parameter(torch.randn(width, embed_dim) * width**-0.5)
        self.projection_bias = nn.Parameter(torch.zeros(embed_dim)) if projection_bias else None

    @property
    def layers(self) -> int:
        return len(self.transformer.resblocks)

    def forward(self, text: PackedText, context: Sequence[Tensor] = ()) -> Tensor:
        """Features [C, D], not normalised, in the order of the class names.

        Args:
            text: the packed class names.
            context: learnable context tokens, one tensor a block from the first on, each [n, W]
                or, class-specific, [C, n, W]. The first is inserted after the packed prefix
                (and is given position embeddings); each later one replaces those positions
                before its block.
        """
        context = [_packed_order(tokens, text) for tokens in context]
        prefix = self.token_embedding(text.prefix).unsqueeze(0)  # [1, P, W]
        if context:
            prefix = _join(prefix, context[0])  # [1 or C, P + n, W]
        kept, shared = len(text.prefix), prefix.shape[1]
        prefix = prefix + self.positional_embedding[:shared]
        positions = self.positional_embedding[shared + text.offsets]
        suffix = self.token_embedding(text.suffixes) + positions  # [T, W]

        *blocks, last = self.transformer.blocks
        for depth, block in enumerate(blocks):
            prefix = _replace(prefix, context, depth, kept)
            prefix, suffix = _shared_prefix_block(block, prefix, suffix, text.groups)
        prefix = _replace(prefix, context, len(blocks), kept)
        ends = _read_ends(last, prefix, suffix, text)  # [C, W]

        features = self.ln_final(ends) @ self.text_projection
        if self.projection_bias is not None:
            features = features + self.projection_bias
        return text.unsort(features)


def _packed_order(tokens: Tensor, text: PackedText) -> Tensor:
    return tokens[text.order] if tokens.dim() == 3 else tokens.unsqueeze(0)


def _join(prefix: Tensor, context: Tensor) -> Tensor:
    return torch.cat([prefix.expand(len(context), -1, -1), context], dim=1)


def _replace(prefix: Tensor, context: Sequence[Tensor], depth: int, kept: int) -> Tensor:
    """Put the context that belongs to block `depth` behind the first `kept` positions."""
    if depth == 0 or depth >= len(context):
        return prefix
    return torch.cat([prefix[:, :kept], context[depth].expand(len(prefix), -1, -1)], dim=1)


def _shared_prefix_block(
    block: Block, prefix: Tensor, suffix: Tensor, groups: Sequence[LengthGroup]
) -> tuple[Tensor, Tensor]:
    """One block over the prefix [G, P, W] and the packed suffixes [T, W]."""
    attn = block.attn
    q_prefix, k_prefix, v_prefix = attn.project(block.ln_1(prefix))
    q, k, v = attn.project(block.ln_1(suffix))
    attended = _attend_groups(attn, q, k, v, k_prefix, v_prefix, groups, ends_only=False)
    suffix = block.feed_forward(suffix + attn.project_output(attended))
    prefix = block.feed_forward(prefix + attn.attend(q_prefix, k_prefix, v_prefix, causal=True))
    return prefix, suffix


def _read_ends(block: Block, prefix: Tensor, suffix: Tensor, text: PackedText) -> Tensor:
    """The last block's output at each class's [EOS], [C, W], which is all that is read."""
    attn = block.attn
    k_prefix, v_prefix = attn.project_keys_values(block.ln_1(prefix))
    normed = block.ln_1(suffix)
    q = attn.project_queries(normed[text.ends])
    k, v = attn.project_keys_values(normed)
    attended = _attend_groups(attn, q, k, v, k_prefix, v_prefix, text.groups, ends_only=True)
    return block.feed_forward(suffix[text.ends] + attn.project_output(attended))


def _attend_groups(
    attn: Attention,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_prefix: Tensor,
    v_prefix: Tensor,
    groups: Sequence[LengthGroup],
    *,
    ends_only: bool,
) -> Tensor:
    """Let every class attend to the prefix and, causally, to its own tokens.

    Args:
        q: queries of all own tokens [T, W], or of the [EOS] of each class [C, W] if `ends_only`.
        k, v: keys and values of all own tokens, [T, W].
        k_prefix, v_prefix: keys and values of the prefix, [1 or C, P, W].

    Returns:
        what was attended, in the shape of `q`, heads merged, before the output projection.
    """
    q = q.unflatten(-1, (attn.heads, -1))  # [·, H, d]
    k, v = k.unflatten(-1, (attn.heads, -1)), v.unflatten(-1, (attn.heads, -1))
    k_prefix, v_prefix = attn.split_heads(k_prefix), attn.split_heads(v_prefix)  # [·, H, P, d]
    sizes = [group.classes * group.length for group in groups]
    rows = [group.classes for group in groups] if ends_only else sizes
    attended = []
    for group, q_own, k_own, v_own in zip(
        groups, q.split(rows), k.split(sizes), v.split(sizes), strict=True
    ):
        shared = slice(None) if len(k_prefix) == 1 else group.members
        out = _attend_group(
            q_own.unflatten(0, (group.classes, -1)).transpose(1, 2),
            k_own.unflatten(0, (group.classes, -1)).transpose(1, 2),
            v_own.unflatten(0, (group.classes, -1)).transpose(1, 2),
            k_prefix[shared],
            v_prefix[shared],
            group.beyond_end if ends_only else group.future,
        )  # [g, H, Lq, d]
        attended.append(out.transpose(1, 2).reshape(-1, q.shape[-2] * q.shape[-1]))
    return torch.cat(attended)


def _attend_group(
    q: Tensor, k: Tensor, v: Tensor, k_prefix: Tensor, v_prefix: Tensor, hidden: Tensor | None
) -> Tensor:
    """Attention of g classes to their prefix and to themselves, [g, H, Lq, d].

    Args:
        q: queries, [g, H, Lq, d].
        k, v: keys and values of the classes' own tokens, [g, H, L, d].
        k_prefix, v_prefix: keys and values of the prefix, [1 or g, H, P, d].
        hidden: True where a query must not look, broadcast to [g, H, Lq, L]; None: nowhere.
    """
    own = q @ k.transpose(-2, -1)  # [g, H, Lq, L]
    if hidden is not None:
        own = own.masked_fill(hidden, float("-inf"))
    scores = torch.cat([_times_prefix(q, k_prefix.transpose(-2, -1)), own], dim=-1)
    weights = (scores * q.shape[-1] ** -0.5).softmax(dim=-1)  # [g, H, Lq, P + L]
    to_prefix, to_own = weights.split([k_prefix.shape[-2], k.shape[-2]], dim=-1)
    return _times_prefix(to_prefix, v_prefix) + to_own @ v


def _times_prefix(x: Tensor, prefix: Tensor) -> Tensor:
    """x [g, H, L, a] times prefix [1 or g, H, a, b]; a shared prefix is never copied per class."""
    if len(prefix) > 1 or len(x) == 1:
        return x @ prefix
    rows = x.transpose(0, 1).flatten(1, 2) @ prefix[0]  # [H, g · L, b]
    return rows.unflatten(1, (x.shape[0], -1)).transpose(0, 1)
