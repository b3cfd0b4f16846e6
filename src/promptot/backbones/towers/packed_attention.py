"""Attention of packed classes: each looks at the prefix and, causally, at its own tokens.

One autograd function covers all length groups of a layer. It keeps queries, keys, values and the
attention weights, and none of the copies per group that autograd would keep.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from promptot.backbones.towers.packing import LengthGroup


def attend_packed(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    k_prefix: Tensor,
    v_prefix: Tensor,
    heads: int,
    groups: Sequence[LengthGroup],
    *,
    ends_only: bool = False,
) -> Tensor:
    """Let every class attend to the prefix and, causally, to its own tokens.

    Args:
        q: queries of all own tokens [T, W], or of the [EOS] of each class [C, W] if `ends_only`.
        k, v: keys and values of all own tokens, [T, W].
        k_prefix, v_prefix: keys and values of the prefix, [1, P, W], or [C, P, W] if each class
            has its own.
        heads: H.
        groups: the runs of classes that are computed together.

    Returns:
        what was attended, in the shape of `q`, heads merged, before the output projection.
    """
    out: Tensor = _PackedAttention.apply(q, k, v, k_prefix, v_prefix, heads, groups, ends_only)
    return out


class _PackedAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        k_prefix: Tensor,
        v_prefix: Tensor,
        heads: int,
        groups: Sequence[LengthGroup],
        ends_only: bool,
    ) -> Tensor:
        ctx.places = _places(groups, heads, ends_only)
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        kept = []
        for at in ctx.places:
            q_own, k_own, v_own = at.queries(q), at.own(k), at.own(v)  # [g, H, Lq or L, d]
            k_pre, v_pre = at.prefix(k_prefix), at.prefix(v_prefix)  # [1 or g, H, P, d]
            own = q_own @ k_own.mT  # [g, H, Lq, L]
            if at.hidden is not None:
                own.masked_fill_(at.hidden, float("-inf"))
            scores = torch.cat([_times_prefix(q_own, k_pre.mT), own], dim=-1)
            weights = scores.mul_(q_own.shape[-1] ** -0.5).softmax(dim=-1)  # [g, H, Lq, P + L]
            to_prefix, to_own = _split(weights, k_own)
            at.queries(out).copy_(to_own @ v_own).add_(_times_prefix(to_prefix, v_pre))
            kept.append(weights)
        ctx.save_for_backward(q, k, v, k_prefix, v_prefix, *kept)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, k_prefix, v_prefix, *kept = ctx.saved_tensors
        dq, dk, dv = (torch.empty_like(x, memory_format=torch.contiguous_format) for x in (q, k, v))
        dk_prefix, dv_prefix = torch.zeros_like(k_prefix), torch.zeros_like(v_prefix)
        for at, weights in zip(ctx.places, kept, strict=True):
            q_own, k_own, v_own = at.queries(q), at.own(k), at.own(v)
            k_pre, v_pre = at.prefix(k_prefix), at.prefix(v_prefix)
            d_out = at.queries(gradients[0])  # [g, H, Lq, d]
            to_prefix, to_own = _split(weights, k_own)
            at.own(dv).copy_(to_own.mT @ d_out)
            at.prefix(dv_prefix).add_(_for_prefix(to_prefix, d_out, v_pre))
            d_weights = torch.cat([_times_prefix(d_out, v_pre.mT), d_out @ v_own.mT], dim=-1)
            d_scores = torch.ops.aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
            to_prefix, to_own = _split(d_scores.mul_(q_own.shape[-1] ** -0.5), k_own)
            at.queries(dq).copy_(to_own @ k_own).add_(_times_prefix(to_prefix, k_pre))
            at.own(dk).copy_(to_own.mT @ q_own)
            at.prefix(dk_prefix).add_(_for_prefix(to_prefix, q_own, k_pre))
        return dq, dk, dv, dk_prefix, dv_prefix, None, None, None


@dataclass(frozen=True)
class _Place:
    """Where one group lies in the packed tensors; views of it, split in heads."""

    classes: int  # g
    heads: int
    query_rows: slice
    own_rows: slice
    members: slice  # of the prefixes, where there are several
    hidden: Tensor | None  # True where a query must not look, broadcast to [g, H, Lq, L]

    def queries(self, x: Tensor) -> Tensor:  # [rows, W] → [g, H, Lq, d]
        return self._split_rows(x[self.query_rows])

    def own(self, x: Tensor) -> Tensor:  # [T, W] → [g, H, L, d]
        return self._split_rows(x[self.own_rows])

    def prefix(self, x: Tensor) -> Tensor:  # [1 or C, P, W] → [1 or g, H, P, d]
        x = x if len(x) == 1 else x[self.members]
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _split_rows(self, rows: Tensor) -> Tensor:
        return rows.view(self.classes, -1, self.heads, rows.shape[-1] // self.heads).transpose(1, 2)


def _places(groups: Sequence[LengthGroup], heads: int, ends_only: bool) -> list[_Place]:
    places = []
    classes = tokens = 0
    for group in groups:
        ends = slice(classes, classes + group.classes)
        own = slice(tokens, tokens + group.classes * group.length)
        classes, tokens = ends.stop, own.stop
        rows, hidden = (ends, group.beyond_end) if ends_only else (own, group.future)
        places.append(_Place(group.classes, heads, rows, own, group.members, hidden))
    return places


def _split(weights: Tensor, own: Tensor) -> tuple[Tensor, Tensor]:
    """[g, H, Lq, P + L] → to the prefix [..., P], and to the own tokens [..., L]."""
    tokens = own.shape[-2]
    return weights[..., :-tokens], weights[..., -tokens:]


def _times_prefix(x: Tensor, prefix: Tensor) -> Tensor:
    """x [g, H, L, a] times prefix [1 or g, H, a, b]; a shared prefix is never copied per class."""
    if len(prefix) > 1 or len(x) == 1:
        return x @ prefix
    rows = x.transpose(0, 1).flatten(1, 2) @ prefix[0]  # [H, g · L, b]
    return rows.unflatten(1, (x.shape[0], -1)).transpose(0, 1)


def _for_prefix(x: Tensor, y: Tensor, prefix: Tensor) -> Tensor:
    """xᵀ y of x [g, H, L, P] and y [g, H, L, d], for each class or, if they share one, for all.

    Returns:
        [1 or g, H, P, d], as `prefix`.
    """
    if len(prefix) > 1 or len(x) == 1:
        return x.mT @ y
    rows = x.transpose(0, 1).flatten(1, 2)  # [H, g · L, P]
    return (rows.mT @ y.transpose(0, 1).flatten(1, 2)).unsqueeze(0)
