"""Whether a classifier's probabilities mean what they say: a reliability diagram in numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from promptot.evaluation.metrics import (
    FloatArray,
    confidence_bins,
    expected_calibration_error,
    to_numpy,
)

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


def reliability(probabilities: Any, labels: Any, bins: int = BINS) -> Reliability:
    """The reliability diagram of a classifier.

    Args:
        probabilities: [N, C], each row sums to 1.
        labels: right classes [N].
        bins: how many equal bins between 0 and 1.

    Raises:
        ValueError: as `expected_calibration_error`.

    References:
        C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks",
        ICML 2017, section 2.

    Example:
        >>> found = reliability([[0.75, 0.25], [0.75, 0.25]], [0, 1], bins=4)
        >>> found.error, found.counts.tolist(), float(found.accuracy[2])
        (0.25, [0.0, 0.0, 2.0, 0.0], 0.5)
    """
    error = expected_calibration_error(probabilities, labels, bins)  # checks the arguments
    table = to_numpy(probabilities).astype(np.float64)  # [N, C]
    confidence = table.max(axis=1)  # [N]
    right = table.argmax(axis=1) == to_numpy(labels)  # [N]
    place = confidence_bins(probabilities, confidence, bins)
    counts = np.bincount(place, minlength=bins).astype(np.float64)

    def mean(values: FloatArray) -> FloatArray:
        sums = np.bincount(place, weights=values, minlength=bins)
        return np.divide(sums, counts, out=np.full(bins, np.nan), where=counts > 0)

    edges = np.arange(bins + 1) / bins
    return Reliability(edges, counts, mean(confidence), mean(right.astype(np.float64)), error)
