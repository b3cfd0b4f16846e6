"""What a trial found, which trials are worth choosing from, and which one to choose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from promptot.evaluation.metrics import wilson_interval


@dataclass(frozen=True)
class Point:
    """One setting and what came of it.

    Attributes:
        settings: recipe values by key; empty for the recipe as it is.
        right: which validation images it got right, a "1" or "0" each.
        retention: a share in 0..1.
        retention_total: number of images that it was measured on.
        seconds: of training and testing.
    """

    settings: Mapping[str, float | int]
    right: str
    retention: float
    retention_total: int
    seconds: float = 0.0

    @property
    def fit(self) -> float:
        """Accuracy on the validation images, 0..1."""
        return self.right.count("1") / len(self.right)

    @property
    def interval(self) -> tuple[float, float]:
        """95 % Wilson interval of `fit`."""
        return wilson_interval(self.right.count("1"), len(self.right))

    def as_json(self) -> dict[str, Any]:
        low, high = self.interval
        return {
            "settings": dict(self.settings),
            "accuracy": round(self.fit, 6),
            "interval": [round(low, 6), round(high, 6)],
            "retention": round(self.retention, 6),
            "seconds": round(self.seconds, 3),
        }


def pareto_front(points: Sequence[Point]) -> list[int]:
    """Positions of the points that no other one beats, by ascending retention.

    A point is beaten by one that is at least as good in both figures and better in one of them. Of
    equal points the first is on the front.

    Example:
        >>> found = [("1100", 0.9), ("1110", 0.5), ("1000", 0.6)]
        >>> pareto_front([Point({}, right, kept, 4) for right, kept in found])
        [1, 0]
    """
    order = sorted(range(len(points)), key=lambda i: (-points[i].retention, -points[i].fit, i))
    front: list[int] = []
    best = -1.0
    for place in order:
        if points[place].fit > best:
            front.append(place)
            best = points[place].fit
    return front[::-1]


def recommend(points: Sequence[Point]) -> int:
    """The position of the point to choose: the rule of one standard error.

    Of the points that are at least as accurate as one within a standard error of the best, the one
    that retains most; of equal ones the more accurate, then the earlier. The standard error is
    that of the difference to the best point on the same images. What is a little better on a few
    validation images is often no better on others, while what is lost is lost.

    Raises:
        ValueError: there is no point.

    References:
        L. Breiman, J. Friedman, R. Olshen, C. Stone, "Classification and Regression Trees" (1984),
        section 3.4.3, for the rule.

    Example:
        >>> far = Point({}, "1111100000", 0.4, 10)
        >>> near = Point({}, "1111000000", 0.9, 10)
        >>> poor = Point({}, "1000000000", 1.0, 10)
        >>> recommend([far, near, poor])
        1
    """
    if not points:
        raise ValueError("there is no point to choose")
    best = max(range(len(points)), key=lambda i: (points[i].fit, points[i].retention, -i))
    level = min(
        point.fit
        for point in points
        if points[best].fit - point.fit <= _standard_error(points[best].right, point.right)
    )
    near = [place for place, point in enumerate(points) if point.fit >= level]
    return max(near, key=lambda i: (points[i].retention, points[i].fit, -i))


def _standard_error(one: str, other: str) -> float:
    """Of the difference of two accuracies on the same images.

    Half an image is added to each of the four cells (Agresti and Min, 2005), so that one image
    more is never taken for a difference.
    """
    ours = sum(a > b for a, b in zip(one, other, strict=True))
    theirs = sum(a < b for a, b in zip(one, other, strict=True))
    n = len(one) + 2
    return math.sqrt(ours + theirs + 1 - (ours - theirs) ** 2 / n) / n
