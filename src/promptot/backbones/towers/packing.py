"""Many class names as one packed sequence: what they share once, the rest without padding."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from promptot.backbones.encoders import TokenTable
from promptot.backbones.towers.tiled_attention import Run, Tiles, tile
from promptot.errors import PromptotError

PADDING_PER_GROUP = 16
"""A group of its own costs about as much as this many tokens; below that, padding is cheaper."""
PADDING_PER_GROUP_ON_GPU = 256
"""The same on a GPU, where a group is some thirty kernels a block and tokens cost next to nothing.

Steps of a ViT-B/16 with 500 and 1000 classes, as CUDA graphs, took 0.72 and 0.78 of the time that
they take with 16, on an H200.
"""


@dataclass(frozen=True, eq=False)
class LengthGroup:
    """Neighbouring classes whose own parts are computed together, padded to one length.

    Attributes:
        first_class, classes: which classes, in packed order (g of them).
        length: L, the tokens of each class, padding included; the group has g · L in all.
        future: True where a token must not look: later positions, padding included, [L, L].
        beyond_end: True at positions after each class's [EOS], [g, 1, 1, L]; None if there are
            none, because all have the same length.
    """

    first_class: int
    classes: int
    length: int
    future: Tensor
    beyond_end: Tensor | None

    @property
    def members(self) -> slice:
        return slice(self.first_class, self.first_class + self.classes)

    def to(self, device: torch.device | str) -> LengthGroup:
        beyond = None if self.beyond_end is None else self.beyond_end.to(device)
        return replace(self, future=self.future.to(device), beyond_end=beyond)


@dataclass(frozen=True, eq=False)
class PackedText:
    """C token sequences that begin alike, packed.

    Attributes:
        prefix: tokens that all the sequences start with, [SOS] first, [P].
        suffixes: the remaining tokens of each class up to its [EOS], shortest class first, [T].
            Where that is cheaper than one more group, a few follow an [EOS] as padding; causal
            attention keeps them from changing anything.
        offsets: position of each of these tokens in its class's own part, from 0, [T].
        order: original index of each packed class, [C].
        ends: index in `suffixes` of each packed class's [EOS], [C].
        groups: runs of packed classes that are computed together.
        tiled: the tiles that were made of them, by prefix; see `tiles`.
    """

    prefix: Tensor
    suffixes: Tensor
    offsets: Tensor
    order: Tensor
    ends: Tensor
    groups: tuple[LengthGroup, ...]
    tiled: dict[Hashable, Tiles] = field(default_factory=dict, kw_only=True)

    @property
    def classes(self) -> int:
        return len(self.order)

    @property
    def tokens(self) -> int:
        return len(self.suffixes)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prefix and [EOS] included."""
        return len(self.prefix) + max(group.length for group in self.groups)

    def tiles(self, prefixes: int, length: int, dtype: torch.dtype) -> Tiles:
        """Of these texts behind G prefixes of P tokens, made once for each layout."""
        device, runs = self.suffixes.device, self._runs()
        sets = self._sets(prefixes)
        key = runs, prefixes, length, sets, dtype
        if key not in self.tiled:
            self.tiled[key] = tile(runs, prefixes, length, sets).to(device, dtype)
        return self.tiled[key]

    def _runs(self) -> tuple[Run, ...]:
        return tuple(Run(group.classes, group.length) for group in self.groups)

    def _sets(self, prefixes: int) -> int | None:
        return 1 if prefixes == 1 else None

    def with_words(self, words: TokenTable) -> PackedText:
        """These, and A words with the same first token behind them, all padded to one length."""
        count, length = words.ids.shape[0], words.ids.shape[1] - len(self.prefix)
        ends = words.lengths - len(self.prefix)  # tokens of its own of each, [A]
        places = torch.arange(length, device=self.order.device)
        numbers = torch.arange(count, device=self.order.device)
        group = LengthGroup(
            first_class=self.classes,
            classes=count,
            length=length,
            future=places[:, None] < places,
            beyond_end=(places >= ends[:, None])[:, None, None],
        )
        return PackedText(
            self.prefix,
            torch.cat([self.suffixes, words.ids[:, len(self.prefix) :].flatten()]),
            torch.cat([self.offsets, places.repeat(count)]),
            torch.cat([self.order, self.classes + numbers]),
            torch.cat([self.ends, len(self.suffixes) + length * numbers + ends - 1]),
            (*self.groups, group),
            tiled=self.tiled,
        )

    def unsort(self, rows: Tensor) -> Tensor:
        """Rows in packed order [C, ...] → rows in the order of the class names."""
        return rows[torch.argsort(self.order)]

    def to(self, device: torch.device | str) -> PackedText:
        return PackedText(
            self.prefix.to(device),
            self.suffixes.to(device),
            self.offsets.to(device),
            self.order.to(device),
            self.ends.to(device),
            tuple(group.to(device) for group in self.groups),
        )


def pack(
    sequences: Sequence[Sequence[int]],
    shared: int | None = None,
    padding: int = PADDING_PER_GROUP,
) -> PackedText:
    """Pack token sequences, each from [SOS] to [EOS].

    Args:
        sequences: token ids of each class.
        shared: how many leading tokens count as the prefix; by default as many as all
            sequences have in common. Each keeps at least one token of its own.
        padding: tokens of padding that a group of classes may take in rather than be two.

    Example:
        >>> packed = pack([[0, 5, 6, 7, 9], [0, 5, 8, 9]])
        >>> packed.prefix.tolist(), packed.suffixes.tolist(), packed.order.tolist()
        ([0, 5], [8, 9, 9, 6, 7, 9], [1, 0])
    """
    if not sequences:
        raise PromptotError("There are no class names.", fix="Give at least one.")
    if shared is None:
        shared = _common_prefix(sequences)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    own = [list(sequences[index][shared:]) for index in order]
    suffixes: list[int] = []
    offsets: list[int] = []
    ends: list[int] = []
    groups = []
    for first, last in _group([len(tokens) for tokens in own], padding):
        members = own[first:last]
        length = len(members[-1])
        groups.append(_make_group(first, [len(tokens) for tokens in members]))
        for tokens in members:
            ends.append(len(suffixes) + len(tokens) - 1)
            suffixes += tokens + tokens[-1:] * (length - len(tokens))
            offsets += range(length)
    return PackedText(
        prefix=torch.tensor(sequences[0][:shared], dtype=torch.long),
        suffixes=torch.tensor(suffixes),
        offsets=torch.tensor(offsets),
        order=torch.tensor(order),
        ends=torch.tensor(ends),
        groups=tuple(groups),
    )


def _group(lengths: Sequence[int], most: int) -> list[tuple[int, int]]:
    """Runs [first, last) of ascending lengths to compute together, from the longest on.

    A run takes in the next shorter length as long as its padding is `most` tokens or less.
    """
    runs: list[tuple[int, int]] = []
    last = len(lengths)
    while last > 0:
        longest = lengths[last - 1]
        first, padding = last, 0
        while first > 0:
            shorter = lengths[first - 1]
            start = bisect_left(lengths, shorter, 0, first)
            padding += (first - start) * (longest - shorter)
            if padding > most:
                break
            first = start
        runs.append((first, last))
        last = first
    return runs[::-1]


def _make_group(first_class: int, lengths: Sequence[int]) -> LengthGroup:
    length = lengths[-1]
    beyond = torch.arange(length) >= torch.tensor(lengths)[:, None]  # [g, L]
    return LengthGroup(
        first_class=first_class,
        classes=len(lengths),
        length=length,
        future=torch.ones(length, length, dtype=torch.bool).triu(1),
        beyond_end=beyond[:, None, None] if lengths[0] < length else None,
    )


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    limit = min(len(sequence) for sequence in sequences) - 1
    first = sequences[0]
    shared = 0
    while shared < limit and all(sequence[shared] == first[shared] for sequence in sequences):
        shared += 1
    return shared
