"""Whether a classifier's probabilities mean what they say: a reliability diagram in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from promptot.evaluation.metrics import FloatArray, IntArray, predicted_and_right, to_numpy
from promptot.objectives.fit import Fit

BINS = 10


@dataclass(frozen=True, eq=False)
class Reliability:
    """Confidence against accuracy, bin by bin.

    Attributes:
        edges: of the bins, [bins + 1], from 0 to 1; a bin holds its upper end.
        counts: examples in each bin, [bins].
        confidence: their mean probability of the predicted class, [bins]; NaN in an empty bin.
        accuracy: share of them that is right, [bins]; NaN in an empty bin.
        error: expected calibration error over these bins, 0..1.
    """

    edges: FloatArray
    counts: FloatArray
    confidence: FloatArray
    accuracy: FloatArray
    error: float


def reliability(
    probabilities: Any, labels: Any, bins: int = BINS, *, fit: Fit = "softmax"
) -> Reliability:
    """The reliability diagram of a classifier.

    Examples are put into equal bins by the probability of the predicted class. A bin holds its
    upper end: (0, 1/bins], ..., ((bins-1)/bins, 1].

    Args:
        probabilities: [N, C], see `promptot.objectives.probabilities`; each row sums to 1 unless
            they are sigmoids.
        labels: right classes [N].
        bins: how many equal bins between 0 and 1.
        fit: whether they are of a softmax, or a sigmoid for each class.

    Raises:
        ValueError: rows that are not probabilities, no bins, and as `accuracy`.

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
        ICML 2017, section 2.

    Example:
        >>> found = reliability([[0.75, 0.25], [0.75, 0.25]], [0, 1], bins=4)
        >>> found.error, found.counts.tolist(), float(found.accuracy[2])
        (0.25, [0.0, 0.0, 2.0, 0.0], 0.5)
    """
    table = to_numpy(probabilities).astype(np.float64)  # [N, C]
    if table.ndim != 2 or not _are_probabilities(table, fit):
        what = "and sum to 1 in every row" if fit == "softmax" else "and at most 1"
        raise ValueError(f"probabilities must be [N, C], not negative, {what}")
    if bins < 1:
        raise ValueError(f"at least one bin is needed, not {bins}")
    predicted, right = predicted_and_right(table, labels)
    confidence = table.max(axis=1)  # [N]
    place = _bins_of(confidence, probabilities, bins)  # [N]

    def total(values: Any = None) -> FloatArray:
        return np.bincount(place, weights=values, minlength=bins).astype(np.float64)

    counts = total()

    def mean(values: Any) -> FloatArray:
        return np.divide(total(values), counts, out=np.full(bins, np.nan), where=counts > 0)

    hits = (predicted == right).astype(np.float64)
    error = float(np.abs(total(hits - confidence)).sum() / len(table))
    return Reliability(np.arange(bins + 1) / bins, counts, mean(confidence), mean(hits), error)


def expected_calibration_error(
    probabilities: Any, labels: Any, bins: int = 15, *, fit: Fit = "softmax"
) -> float:
    """How far a classifier's confidence is from its accuracy, on average.

    The mean over examples of their bin's |accuracy - mean confidence|, a share in 0..1; 0 is
    perfectly calibrated. Arguments and errors as `reliability`.

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
        ICML 2017, eq. 3.

    Example:
        >>> expected_calibration_error([[0.75, 0.25], [0.75, 0.25]], [0, 1])
        0.25
    """
    return reliability(probabilities, labels, bins, fit=fit).error


def _are_probabilities(table: FloatArray, fit: Fit) -> bool:
    """Whether a table [N, C] can be what a softmax over its rows gives, or sigmoids."""
    if (table < 0).any():
        return False
    if fit == "sigmoid":
        return bool((table <= 1).all())
    return np.allclose(table.sum(axis=1), 1, atol=1e-3)


def _bins_of(confidence: FloatArray, probabilities: Any, bins: int) -> IntArray:
    """The bin of each confidence [N], counted from 0.

    An edge such as 7/25 is the number nearest to it in the precision of the probabilities.

    Example:
        >>> _bins_of(np.array([0.28, 0.2801, 0.0, 1.0]), [], bins=25).tolist()
        [6, 7, 0, 24]
    """
    edges = np.arange(bins + 1) / bins
    if hasattr(probabilities, "detach"):
        edges = to_numpy(probabilities.new_tensor(edges.tolist()))
    elif np.issubdtype((dtype := np.asarray(probabilities).dtype), np.floating):
        edges = edges.astype(dtype)
    places = np.searchsorted(edges.astype(np.float64), confidence, side="left") - 1
    return np.clip(places, 0, bins - 1).astype(np.int64)
