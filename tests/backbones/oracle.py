"""The plain way to encode text: every class padded to the full context, one causal transformer."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.backbones.towers.text_tower import TextTower


def full_length_features(
    tower: TextTower, sequences: Sequence[Sequence[int]], context: Sequence[Tensor] = ()
) -> Tensor:
    """Features [C, D] of token sequences, with `context` inserted after the first token.

    Nothing is shared, packed or skipped, and the attention is written out.
    """
    rows, ends = [], []
    for index, sequence in enumerate(sequences):
        embedded = tower.token_embedding(torch.tensor(sequence))
        if context:
            own = context[0][index] if context[0].dim() == 3 else context[0]
            embedded = torch.cat([embedded[:1], own, embedded[1:]])
        ends.append(len(embedded) - 1)
        rows.append(F.pad(embedded, (0, 0, 0, tower.context_length - len(embedded))))
    x = torch.stack(rows) + tower.positional_embedding
    length = tower.context_length
    mask = torch.full((length, length), float("-inf")).triu(1)
    for depth, block in enumerate(tower.transformer.resblocks):
        if 0 < depth < len(context):
            own = context[depth].expand(len(x), -1, -1)
            x = torch.cat([x[:, :1], own, x[:, 1 + own.shape[1] :]], dim=1)
        heads = block.attn.heads
        qkv = F.linear(block.ln_1(x), block.attn.in_proj_weight, block.attn.in_proj_bias)
        q, k, v = (t.unflatten(-1, (heads, -1)).transpose(1, 2) for t in qkv.chunk(3, dim=-1))
        scores = q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5 + mask
        attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(-2)
        x = x + block.attn.out_proj(attended)
        x = x + block.mlp(block.ln_2(x))
    read = tower.ln_final(x)[torch.arange(len(x)), ends]
    features = read @ tower.text_projection
    return features if tower.projection_bias is None else features + tower.projection_bias
