"""Bins of a reliability diagram, against a plain computation and scikit-learn's curve."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve

from promptot.evaluation.calibration import expected_calibration_error, reliability


def answers(n: int = 400, c: int = 4, seed: int = 0):
    generator = np.random.default_rng(seed)
    probabilities = generator.dirichlet(np.full(c, 0.4), size=n)
    return probabilities, generator.integers(0, c, n)


def test_bins_are_those_of_scikit_learn() -> None:
    probabilities, labels = answers()
    found = reliability(probabilities, labels, bins=10)
    right = (probabilities.argmax(axis=1) == labels).astype(int)
    accuracy, confidence = calibration_curve(right, probabilities.max(axis=1), n_bins=10)
    filled = found.counts > 0
    np.testing.assert_allclose(found.accuracy[filled], accuracy)
    np.testing.assert_allclose(found.confidence[filled], confidence)


def test_the_error_is_the_weighted_gap_of_the_bins() -> None:
    probabilities, labels = answers()
    found = reliability(probabilities, labels, bins=7)
    filled = found.counts > 0
    gaps = np.abs(found.accuracy - found.confidence)[filled] * found.counts[filled]
    assert found.counts.sum() == len(labels)
    assert found.error == pytest.approx(gaps.sum() / len(labels))
    assert found.error == expected_calibration_error(probabilities, labels, bins=7)


def test_a_sure_and_right_model_has_no_error_and_empty_bins() -> None:
    found = reliability(np.eye(3), [0, 1, 2], bins=5)
    assert found.error == 0
    assert found.counts.tolist() == [0, 0, 0, 0, 3]
    assert np.isnan(found.accuracy[:4]).all()


def test_sigmoids_need_not_sum_to_1() -> None:
    """The confidence is that of the predicted class, and may be below 1/C of a softmax."""
    found = reliability([[0.9, 0.8], [0.1, 0.2]], [0, 0], bins=4, fit="sigmoid")
    assert found.counts.tolist() == [1, 0, 0, 1]
    assert found.accuracy[[0, 3]].tolist() == [0, 1]
    assert found.error == pytest.approx((0.2 + 0.1) / 2)
    for wrong in ([[1.2, 0.1]], [[-0.1, 0.5]], [[float("nan"), 0.5]], [0.5, 0.5]):
        with pytest.raises(ValueError, match="at most 1"):
            reliability(wrong, [0], fit="sigmoid")


def test_what_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="sum to 1"):
        reliability([[0.4, 0.4]], [0])
