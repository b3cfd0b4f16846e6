"""Many class names as one packed sequence: what they share once, the rest without padding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptot.errors import PromptotError


@dataclass(frozen=True)
class LengthGroup:
    """Classes whose own part has the same number of tokens, neighbours in the packed order."""

    first_class: int
    classes: int
    first_token: int
    length: int

    @property
    def tokens(self) -> slice:
        return slice(self.first_token, self.first_token + self.classes * self.length)

    @property
    def members(self) -> slice:
        return slice(self.first_class, self.first_class + self.classes)


@dataclass(frozen=True)
class PackedText:
    """C token sequences that begin alike, packed.

    Attributes:
        prefix: tokens that all the sequences start with, [SOS] first, [P].
        suffixes: the remaining tokens of each class up to its [EOS], shortest class first, [T].
        offsets: position of each of these tokens in its class's own part, from 0, [T].
        order: original index of each packed class, [C].
        ends: index in `suffixes` of each packed class's [EOS], [C].
        groups: runs of packed classes with the same length.
    """

    prefix: Tensor
    suffixes: Tensor
    offsets: Tensor
    order: Tensor
    ends: Tensor
    groups: tuple[LengthGroup, ...]

    @property
    def classes(self) -> int:
        return len(self.order)

    @property
    def longest(self) -> int:
        """Tokens of the longest sequence, prefix and [EOS] included."""
        return len(self.prefix) + self.groups[-1].length

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
            self.groups,
        )


def pack(sequences: Sequence[Sequence[int]], shared: int | None = None) -> PackedText:
    """Pack token sequences, each from [SOS] to [EOS].

    Args:
        sequences: token ids of each class.
        shared: how many leading tokens count as the prefix; by default as many as all
            sequences have in common. Each keeps at least one token of its own.

    Example:
        >>> packed = pack([[0, 5, 6, 7, 9], [0, 5, 8, 9]])
        >>> packed.prefix.tolist(), packed.suffixes.tolist(), packed.order.tolist()
        ([0, 5], [8, 9, 6, 7, 9], [1, 0])
    """
    if not sequences:
        raise PromptotError("There are no class names.", fix="Give at least one.")
    if shared is None:
        shared = _common_prefix(sequences)
    order = sorted(range(len(sequences)), key=lambda index: len(sequences[index]))
    suffixes = [list(sequences[index][shared:]) for index in order]
    lengths = [len(suffix) for suffix in suffixes]
    groups: list[LengthGroup] = []
    token = 0
    for index, length in enumerate(lengths):
        if groups and groups[-1].length == length:
            last = groups.pop()
            groups.append(LengthGroup(last.first_class, last.classes + 1, last.first_token, length))
        else:
            groups.append(LengthGroup(index, 1, token, length))
        token += length
    return PackedText(
        prefix=torch.tensor(sequences[0][:shared], dtype=torch.long),
        suffixes=torch.tensor([token for suffix in suffixes for token in suffix]),
        offsets=torch.cat([torch.arange(length) for length in lengths]),
        order=torch.tensor(order),
        ends=torch.tensor(lengths).cumsum(0) - 1,
        groups=tuple(groups),
    )


def _common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    limit = min(len(sequence) for sequence in sequences) - 1
    first = sequences[0]
    shared = 0
    while shared < limit and all(sequence[shared] == first[shared] for sequence in sequences):
        shared += 1
    return shared
