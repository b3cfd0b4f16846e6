"""Images that show the same picture, whatever their size, format or compression."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.fft import dctn
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

SHAPE = 0.97
"""The least cosine between the low frequencies of two copies."""
COLOUR = 8.0
"""How much two small copies may differ, as a mean over pixels and colours, of 255."""
_SIDE = 16
_PLAIN = 64.0  # a picture whose low frequencies are weaker than this is told by its colours
_BLOCK = 1024


@dataclass(frozen=True, eq=False)
class Appearance:
    """What a picture is compared by.

    Attributes:
        shape: its 8 × 8 lowest frequencies (a discrete cosine transform of its 32 × 32 greys)
            without the mean, and a constant, to length 1, [64]: a perceptual hash before it is
            rounded to bits, since the sign of a frequency that is hardly there says nothing.
        small: its colours at 16 × 16, [768].
    """

    shape: np.ndarray
    small: np.ndarray


def appearance_of(image: Image.Image) -> Appearance:
    """The appearance of an RGB image."""
    grey = image.convert("L").resize((32, 32), Image.Resampling.BOX)
    shape = dctn(np.asarray(grey, dtype=np.float32), norm="ortho")[:8, :8].ravel()
    shape[0] = _PLAIN
    small = image.resize((_SIDE, _SIDE), Image.Resampling.BOX)
    colours = np.asarray(small, dtype=np.float32).ravel()
    return Appearance(shape / np.linalg.norm(shape), colours)


def find_pairs(prints: Sequence[Appearance]) -> list[tuple[int, int]]:
    """Pairs of images that show the same picture, as positions, the smaller one first.

    Both tests must agree: `SHAPE` and `COLOUR`. Of images whose prints are equal, each is paired
    with the first only. N different images cost N²/2 comparisons of 64 numbers, done as matrix
    products of a thousand rows at a time.
    """
    first: dict[bytes, int] = {}
    pairs: list[tuple[int, int]] = []
    for place, look in enumerate(prints):
        known = first.setdefault(look.shape.tobytes() + look.small.tobytes(), place)
        if known != place:
            pairs.append((known, place))
    places = list(first.values())
    if not places:
        return []
    shapes = np.stack([prints[place].shape for place in places])  # [N, 64]
    for start in range(0, len(places), _BLOCK):
        alike = shapes[start : start + _BLOCK] @ shapes[start:].T
        rows, columns = np.nonzero(np.triu(alike >= SHAPE, k=1))
        for row, column in zip(rows.tolist(), columns.tolist(), strict=True):
            one, other = places[start + row], places[start + column]
            if np.abs(prints[one].small - prints[other].small).mean() <= COLOUR:
                pairs.append((one, other))
    return sorted(pairs)


def group(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Positions that pairs connect, each group sorted.

    Example:
        >>> group([(0, 3), (5, 6), (3, 4)])
        [[0, 3, 4], [5, 6]]
    """
    places, ends = np.unique(np.array(list(pairs), dtype=int).reshape(-1, 2), return_inverse=True)
    one, other = ends.reshape(-1, 2).T
    graph = coo_array((np.ones(len(one)), (one, other)), shape=(len(places), len(places)))
    groups: dict[int, list[int]] = {}
    for place, label in zip(places.tolist(), connected_components(graph)[1].tolist(), strict=True):
        groups.setdefault(label, []).append(place)
    return list(groups.values())
