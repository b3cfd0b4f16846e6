"""Images that show the same picture, whatever their size, format or compression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn

BITS_APART = 8
"""Of 64 bits of a perceptual hash, how many may differ; unrelated pictures differ in about 32."""
PIXELS_APART = 10.0
"""How much two small copies may differ, as a mean over pixels and colours, of 255."""
_SIDE = 16
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Print:
    """What a picture is compared by.

    Attributes:
        bits: its perceptual hash, [64] of ±1: the signs of its 8 × 8 lowest frequencies (a discrete
            cosine transform of its 32 × 32 greys) against their median.
        small: its colours at 16 × 16, [768].
    """

    bits: np.ndarray
    small: np.ndarray


def print_of(image: Image.Image) -> Print:
    """The fingerprint of an RGB image."""
    grey = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    low = dctn(np.asarray(grey, dtype=np.float32), norm="ortho")[:8, :8].ravel()
    bits = np.where(low > np.median(low[1:]), 1, -1).astype(np.float32)
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    return Print(bits, np.asarray(small, dtype=np.float32).ravel())


def find_pairs(prints: Sequence[Print]) -> list[tuple[int, int]]:
    """Every two images that show the same picture, as positions (the smaller one first).

    Both tests must agree: hashes that differ in at most `BITS_APART` bits, and small copies that
    differ by at most `PIXELS_APART`. N images cost N²/2 comparisons of 64 bits, done as matrix
    products of a thousand rows at a time.
    """
    if not prints:
        return []
    bits = np.stack([one.bits for one in prints])  # [N, 64]
    pairs: list[tuple[int, int]] = []
    for start in range(0, len(bits), _BLOCK):
        alike = bits[start : start + _BLOCK] @ bits[start:].T  # 64 − 2 · bits apart
        rows, columns = np.nonzero(alike >= 64 - 2 * BITS_APART)
        for i, j in zip((rows + start).tolist(), (columns + start).tolist(), strict=True):
            if i < j and np.abs(prints[i].small - prints[j].small).mean() <= PIXELS_APART:
                pairs.append((i, j))
    return pairs


def group(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Positions that pairs connect, each group sorted.

    Example:
        >>> group([(0, 3), (5, 6), (3, 4)])
        [[0, 3, 4], [5, 6]]
    """
    root: dict[int, int] = {}

    def find(place: int) -> int:
        while root.setdefault(place, place) != place:
            root[place] = root[root[place]]
            place = root[place]
        return place

    for one, other in pairs:
        root[find(other)] = find(one)
    groups: dict[int, list[int]] = {}
    for place in sorted(root):
        groups.setdefault(find(place), []).append(place)
    return list(groups.values())
