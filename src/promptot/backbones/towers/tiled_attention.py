"""Attention of packed classes on a GPU: as many classes as fit lie in a tile, all tiles at once.

A class has a few tokens of its own, much less than what one block of a GPU computes in one go; and
a kernel for each length of class names is many kernels. Here neighbouring classes share a tile
whatever their lengths, a mask keeps them apart, and PyTorch's memory-efficient attention takes all
tiles in one kernel, forward and backward.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

KEYS = 64
"""Keys that a tile has room for, a prefix included: as many as the kernel takes at a time."""
ALIGNED = 8
"""The kernel reads a mask whose rows begin at multiples of 16 bytes."""

_aten = torch.ops.aten


@dataclass(frozen=True, eq=False)
class Tiles:
    """Packed texts, R rows in all, laid out in N tiles of M places.

    Attributes:
        rows: the row at each place, [N · M]; 0 at places that nobody reads.
        places: the place of each row, [R].
        keys: the place that each key is read from, [N · K]: first those of the prefix, where the
            classes of a set share one, then the tile's own places.
        bias: 0 where a place may look, −∞ elsewhere, [N, 1, M, K].
        sets: S, neighbouring parts of the tiles that have a prefix each, in its first places.
        copied: P, rows of that prefix; 0 where each class has its own.
    """

    rows: Tensor
    places: Tensor
    keys: Tensor
    bias: Tensor
    sets: int
    copied: int

    def to(self, device: torch.device, dtype: torch.dtype) -> Tiles:
        """There, the bias in the precision of what is attended."""
        rows, places, keys = (tensor.to(device) for tensor in (self.rows, self.places, self.keys))
        return Tiles(rows, places, keys, self.bias.to(device, dtype), self.sets, self.copied)

    def replace_context(self, x: Tensor, new: Tensor, kept: int) -> Tensor:
        """`x` [N · M, W] with a new context [G, n, W] behind the first `kept` of each prefix."""
        prefixes, tokens, _ = new.shape
        rows = new.flatten(0, 1)
        if prefixes == 1:  # they are the first of all
            out: Tensor = _Replaced.apply(x, rows, kept)
            return out
        places = self.places[: prefixes * (kept + tokens)].view(prefixes, -1)
        return x.index_copy(0, places[:, kept:].flatten(), rows)


class _Replaced(torch.autograd.Function):
    """Neighbouring rows of x replaced, in few kernels."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, new: Tensor, start: int) -> Tensor:
        ctx.replaced = slice(start, start + len(new))
        return torch.cat([x[:start], new, x[start + len(new) :]])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        below, new = gradients[0].clone(), gradients[0][ctx.replaced]
        below[ctx.replaced] = 0
        return below, new, None


class Run(NamedTuple):
    """Neighbouring classes of one length in the order of their rows; see `LengthGroup`."""

    classes: int
    length: int


def tile(runs: Sequence[Run], prefixes: int, length: int, sets: int | None = None) -> Tiles:
    """Tiles of what `TextTower` packs: G prefixes of P rows, then the classes' own rows.

    Args:
        runs: of all classes; with `sets` those of one set, as each has the same.
        prefixes: G.
        length: P.
        sets: how many sets of classes have a prefix each, G; None where each class has its own.

    Example:
        >>> found = tile([Run(classes=2, length=3)], prefixes=1, length=2, sets=1)
        >>> found.rows.tolist(), found.keys.tolist()
        ([0, 1, 2, 3, 4, 5, 6, 7], [0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 0, 0, 0, 0, 0, 0])
    """
    lengths = [run.length for run in runs for _ in range(run.classes)]
    each, first = sum(lengths), prefixes * length
    copied = length if sets else 0
    tiles: list[list[range | list[int]]] = []  # of each, the rows of what is causal in itself
    for number in range(sets or 1):
        parts: list[range | list[int]] = []
        if sets:
            parts.append(range(number * length, (number + 1) * length))
        start = first + number * each
        for position, size in enumerate(lengths):
            before = () if sets else range(position * length, (position + 1) * length)
            parts.append([*before, *range(start, start + size)])
            start += size
        tiles += _fill(parts, max(KEYS - copied, KEYS // 2))
    return _lay_out(tiles, first + each * (sets or 1), sets or 1, copied)


def _fill(parts: Sequence[range | list[int]], room: int) -> Iterator[list[range | list[int]]]:
    """Neighbours together, as far as there is room."""
    together: list[range | list[int]] = []
    for part in parts:
        if together and sum(map(len, together)) + len(part) > room:
            yield together
            together = []
        together.append(part)
    yield together


def _lay_out(
    tiles: Sequence[Sequence[range | list[int]]], count: int, sets: int, copied: int
) -> Tiles:
    size = max(sum(map(len, parts)) for parts in tiles)
    width = -(-(copied + size) // ALIGNED) * ALIGNED
    rows, owners = torch.zeros(len(tiles), size, dtype=torch.long), -torch.ones(len(tiles), size)
    for number, parts in enumerate(tiles):
        own = torch.tensor([row for part in parts for row in part])
        rows[number, : len(own)] = own
        lengths = torch.tensor([len(part) for part in parts])
        owners[number, : len(own)] = torch.arange(len(parts)).repeat_interleave(lengths).float()
    read = owners >= 0
    numbers = torch.arange(rows.numel()).view(rows.shape)
    places = torch.zeros(count, dtype=torch.long)
    places[rows[read]] = numbers[read]
    firsts = numbers[:: len(tiles) // sets, :copied]  # the places of each set's prefix, [S, P]
    keys = torch.zeros(len(tiles), width, dtype=torch.long)
    keys[:, :copied] = firsts.repeat_interleave(len(tiles) // sets, dim=0)
    keys[:, copied : copied + size] = numbers

    earlier = torch.ones(size, size, dtype=torch.bool).tril()
    visible = torch.zeros(len(tiles), size, width, dtype=torch.bool)
    visible[:, :, :copied] = True
    visible[:, :, copied : copied + size] = (owners[:, :, None] == owners[:, None]) & earlier
    prefixes = visible[:: len(tiles) // sets, :copied]  # each looks at its own copy
    prefixes[:] = False
    prefixes[:, :, :copied] = earlier[:copied, :copied]
    bias = torch.zeros(len(tiles), 1, size, width)
    bias.masked_fill_(~visible[:, None], float("-inf"))
    return Tiles(rows.flatten(), places, keys.flatten(), bias, sets, copied)


def attend_tiles(qkv: Tensor, tiles: Tiles, heads: int) -> Tensor:
    """Let every place attend to its prefix and, causally, to its own class.

    Args:
        qkv: queries, keys and values of all places beside each other, [N · M, 3 W].
        heads: H.

    Returns:
        [N · M, W], heads merged, before the output projection.
    """
    out: Tensor = _TiledAttention.apply(qkv, tiles, heads)
    return out


class _TiledAttention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, qkv: Tensor, tiles: Tiles, heads: int) -> Tensor:
        number, width = len(tiles.bias), qkv.shape[1] // 3
        q = qkv[:, :width].view(number, -1, heads, width // heads)  # [N, M, H, d]
        kv = qkv[:, width:].index_select(0, tiles.keys)
        bias = tiles.bias.expand(-1, heads, -1, -1)
        out, *seen = _kernel(q.device).forward(q, *_keys_values(kv, number, heads), bias)
        ctx.tiles = tiles
        ctx.save_for_backward(q, kv, out, *seen)
        return out.reshape(-1, width)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        q, kv, out, *seen = ctx.saved_tensors
        tiles: Tiles = ctx.tiles
        number, size, heads, _ = q.shape
        bias = tiles.bias.expand(-1, heads, -1, -1)
        above = gradients[0].contiguous().view(out.shape)
        found = _kernel(q.device).backward(
            above, q, *_keys_values(kv, number, heads), bias, out, *seen
        )
        copied = tiles.copied
        own = (part[:, copied : copied + size] for part in found[1:])
        d_qkv = torch.cat([found[0], *own], dim=2).view(number, size, 3, *q.shape[2:])
        if copied:  # by every tile of a set, from the first places of its first tile
            first = d_qkv.view(tiles.sets, -1, *d_qkv.shape[2:])[:, :copied]
            for at, part in enumerate(found[1:], start=1):
                copies = part.view(tiles.sets, -1, *part.shape[1:])[:, :, :copied]
                torch.sum(copies, dim=1, out=first[:, :, at])
        return d_qkv.view(number * size, -1), None, None


def _keys_values(kv: Tensor, tiles: int, heads: int) -> tuple[Tensor, Tensor]:
    """[N · K, 2 W] → keys and values, each [N, K, H, d]."""
    k, v = kv.view(tiles, -1, 2, heads, kv.shape[1] // 2 // heads).unbind(2)
    return k, v


class _Efficient:
    """PyTorch's memory-efficient attention on CUDA; q [N, M, H, d], k and v [N, K, H, d].

    The keys are not split among blocks, so that every sum has one order.
    """

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        out, sums, seed, offset, *_ = _aten._efficient_attention_forward(
            q, k, v, bias, None, None, None, None, 0.0, 0, True
        )
        return out, sums, seed, offset

    @staticmethod
    def backward(
        above: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, out: Tensor, *seen: Tensor
    ) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = _aten._efficient_attention_backward(
            above, q, k, v, bias, out, None, None, q.shape[1], k.shape[1], seen[0], 0.0,
            seen[1], seen[2], 0, False, num_splits_key=1,
        )  # fmt: skip
        return found[:3]


class _Products:
    """The same by products and a softmax, on any device."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
        q, k, v = (x.transpose(1, 2) for x in (q, k, v))
        weights = ((q @ k.mT) * q.shape[-1] ** -0.5 + bias).softmax(dim=-1)
        return (weights @ v).transpose(1, 2).contiguous(), weights

    @staticmethod
    def backward(
        above: Tensor, q: Tensor, k: Tensor, v: Tensor, bias: Tensor, out: Tensor, *seen: Tensor
    ) -> tuple[Tensor, ...]:
        (weights,) = seen
        above, q, k, v = (x.transpose(1, 2) for x in (above, q, k, v))
        d_weights = above @ v.mT
        scores = _aten._softmax_backward_data(d_weights, weights, -1, weights.dtype)
        scores = scores * q.shape[-1] ** -0.5
        found = scores @ k, scores.mT @ q, weights.mT @ above
        return tuple(x.transpose(1, 2).contiguous() for x in found)


def _kernel(device: torch.device) -> type[_Efficient | _Products]:
    return _Efficient if device.type == "cuda" else _Products


@functools.lru_cache
def works_on(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether tiles are for this device: they pay on CUDA, where PyTorch's kernel is right.

    PyTorch has no public function for the kernel with one order of its sums, so it is tried out.
    """
    if device.type != "cuda":
        return False
    generator = torch.Generator().manual_seed(0)
    q, k, v, above = (
        torch.randn(2, 16, 2, 64, generator=generator).to(device, dtype) for _ in range(4)
    )
    hidden = torch.ones(16, 16, device=device).triu(1).bool()
    bias = torch.zeros(16, 16, device=device, dtype=dtype).masked_fill_(hidden, float("-inf"))
    bias = bias.expand(2, 2, -1, -1)
    found: list[tuple[Tensor, ...]] = []
    try:
        for kernel in (_Efficient, _Products):
            out, *seen = kernel.forward(q, k, v, bias)
            found.append((out, *kernel.backward(above, q, k, v, bias, out, *seen)))
    except (AttributeError, RuntimeError, TypeError):
        return False
    close = 1e-5 if dtype == torch.float32 else 0.1
    return all(torch.allclose(a, b, rtol=close, atol=close) for a, b in zip(*found, strict=True))
