"""Figures of merit of a classifier.

Every share is a number in 0..1; only what is printed for people is in percent. Scores and labels
may be torch tensors (on any device), NumPy arrays or lists.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def accuracy(scores: Any, labels: Any) -> float:
    """Share of examples whose highest score is at the right class.

    Args:
        scores: logits or probabilities [N, C], or predicted classes [N] (integers).
        labels: right classes [N].

    Returns:
        A share in 0..1.

    Raises:
        ValueError: nothing to score, lengths that differ, or scores with a NaN.

    Example:
        >>> accuracy([[2.0, 1.0], [0.0, 3.0], [1.0, 0.0]], [0, 1, 1])
        0.6666666666666666
        >>> accuracy([0, 1, 0], [0, 1, 0])
        1.0
    """
    predicted, right = predicted_and_right(scores, labels)
    return float(np.mean(predicted == right))


def per_class_accuracy(scores: Any, labels: Any, num_classes: int) -> FloatArray:
    """Accuracy among the examples of each class: the recall of every class.

    Args:
        scores: logits or probabilities [N, C], or predicted classes [N].
        labels: right classes [N].
        num_classes: C, so that classes without examples have their place.

    Returns:
        Shares [C]; NaN for a class without examples.

    Example:
        >>> per_class_accuracy([0, 0, 1], [0, 1, 1], num_classes=3)
        array([1. , 0.5, nan])
    """
    counts = confusion(scores, labels, num_classes)  # [C right, C predicted]
    total = counts.sum(axis=1)
    return np.divide(
        counts.diagonal(), total, out=np.full(num_classes, np.nan), where=total > 0, dtype=float
    )


def confusion(scores: Any, labels: Any, num_classes: int) -> IntArray:
    """How often each class was taken for which.

    Args:
        scores: logits or probabilities [N, C], or predicted classes [N].
        labels: right classes [N].
        num_classes: C.

    Returns:
        Counts [C, C]: row = right class, column = predicted class.

    Raises:
        ValueError: as `accuracy`, and for a class outside 0..C-1.

    Example:
        >>> confusion([0, 0, 1], [0, 1, 1], num_classes=2)
        array([[1, 0],
               [1, 1]])
    """
    from sklearn.metrics import confusion_matrix

    predicted, right = predicted_and_right(scores, labels)
    for what, classes in (("label", right), ("prediction", predicted)):
        if classes.min() < 0 or classes.max() >= num_classes:
            outside = int(classes.min() if classes.min() < 0 else classes.max())
            raise ValueError(f"{what} {outside} is not one of the classes 0..{num_classes - 1}")
    counts = confusion_matrix(right, predicted, labels=np.arange(num_classes))
    return np.asarray(counts, dtype=np.int64)


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a share: sensible for few examples and near 0 and 1.

    Args:
        correct: how many were right, 0..total.
        total: how many there were.
        confidence: coverage, in 0..1 (both ends excluded).

    Returns:
        The lower and the upper end, shares in 0..1.

    Raises:
        ValueError: impossible counts, or a confidence outside 0..1.

    References:
        E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
        JASA 22 (1927).

    Example:
        >>> low, high = wilson_interval(8, 10)
        >>> f"{low:.3f} {high:.3f}"
        '0.490 0.943'
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"{correct} right of {total} is not a share")
    if not 0 < confidence < 1:
        raise ValueError(f"a confidence lies between 0 and 1, not at {confidence}")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share = correct / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + (z / (2 * total)) ** 2)
    scale = 1 + z * z / total
    low = 0.0 if correct == 0 else (middle - spread) / scale
    high = 1.0 if correct == total else (middle + spread) / scale
    return low, high


def harmonic_mean(base: float, novel: float) -> float:
    """Harmonic mean of the base and the novel accuracy; 0 when either is 0.

    Raises:
        ValueError: a negative or missing accuracy.

    Example:
        >>> round(harmonic_mean(0.8471, 0.7610), 4)
        0.8017
        >>> harmonic_mean(0.9, 0.0)
        0.0
    """
    if not (base >= 0 and novel >= 0):
        raise ValueError(f"accuracies are not negative: {base}, {novel}")
    if base == 0 or novel == 0:
        return 0.0
    return 2 * base * novel / (base + novel)


def harmonic_mean_of_averages(base: Sequence[float], novel: Sequence[float]) -> float:
    """Over several data sets: average base and novel first, then take the harmonic mean.

    This is the convention of the published tables. `average_of_harmonic_means` is the other one;
    it is never larger.

    Raises:
        ValueError: no data sets, or base and novel of different lengths.

    Example:
        >>> harmonic_mean_of_averages([1.0, 0.5], [0.5, 1.0])
        0.75
    """
    _check_pairs(base, novel)
    return harmonic_mean(sum(base) / len(base), sum(novel) / len(novel))


def average_of_harmonic_means(base: Sequence[float], novel: Sequence[float]) -> float:
    """Over several data sets: take each one's harmonic mean, then average.

    Raises:
        ValueError: no data sets, or base and novel of different lengths.

    Example:
        >>> round(average_of_harmonic_means([1.0, 0.5], [0.5, 1.0]), 4)
        0.6667
    """
    _check_pairs(base, novel)
    return sum(map(harmonic_mean, base, novel)) / len(base)


def _check_pairs(base: Sequence[float], novel: Sequence[float]) -> None:
    if len(base) != len(novel) or len(base) == 0:
        raise ValueError(f"base and novel come in pairs: got {len(base)} and {len(novel)}")


def predicted_and_right(scores: Any, labels: Any) -> tuple[IntArray, IntArray]:
    """Predicted classes [N] and right classes [N], checked against each other."""
    table, right = to_numpy(scores), to_numpy(labels)
    if table.ndim == 2 and table.shape[1] > 0:
        if np.isnan(table).any():
            raise ValueError("the scores hold a NaN")
        predicted = table.argmax(axis=1)
    elif table.ndim == 1 and np.issubdtype(table.dtype, np.integer):
        predicted = table
    else:
        raise ValueError(
            f"scores must be [N, C] or integer classes [N], not {table.dtype} {list(table.shape)}"
        )
    if right.shape != predicted.shape or right.size == 0:
        raise ValueError(f"{len(predicted)} predictions for labels of shape {list(right.shape)}")
    if not np.issubdtype(right.dtype, np.integer):
        raise ValueError(f"labels must be integers, not {right.dtype}")
    return predicted.astype(np.int64), right.astype(np.int64)


def to_numpy(values: Any) -> npt.NDArray[Any]:
    """A NumPy copy or view of a tensor, an array or a list, without importing torch."""
    if hasattr(values, "detach"):
        tensor = values.detach()
        if tensor.is_floating_point():
            tensor = tensor.double() if tensor.device.type != "mps" else tensor.float()
        values = tensor.cpu().numpy()
    return np.asarray(values)
