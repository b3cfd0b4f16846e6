"""Values at the edge of what they can be: of bins, of intervals."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
import torch

from promptot.evaluation.calibration import expected_calibration_error, reliability
from promptot.evaluation.retention import paired_change
from promptot.evaluation.scoring import Scores


@pytest.mark.parametrize("bins", [3, 7, 10, 15, 20, 25, 49, 100])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, torch.float32, torch.float64])
def test_a_confidence_on_an_edge_is_in_the_bin_below(bins, dtype) -> None:
    edges = [Fraction(k, bins) for k in range(1, bins + 1) if Fraction(k, bins) > Fraction(1, 2)]
    rows = [[float(edge), float(1 - edge)] for edge in edges]
    if isinstance(dtype, torch.dtype):
        probabilities, labels = torch.tensor(rows, dtype=dtype), torch.zeros(len(rows)).long()
    else:
        probabilities, labels = np.array(rows, dtype=dtype), np.zeros(len(rows), dtype=int)
    found = reliability(probabilities, labels, bins)
    expected = np.zeros(bins)
    for edge in edges:
        expected[int(edge * bins) - 1] += 1
    assert found.counts.tolist() == expected.tolist()


@pytest.mark.parametrize("bins", [10, 15, 25])
def test_other_confidences_are_where_a_plain_loop_puts_them(bins) -> None:
    generator = np.random.default_rng(0)
    table = generator.dirichlet(np.ones(3), 500)
    labels = generator.integers(0, 3, 500)
    groups: list[list[float]] = [[] for _ in range(bins)]
    for row, label in zip(table, labels, strict=True):
        for place in range(bins):
            if place / bins < row.max() <= (place + 1) / bins:
                groups[place].append(float(row.argmax() == label) - row.max())
    assert reliability(table, labels, bins).counts.tolist() == [len(group) for group in groups]
    error = sum(abs(sum(group)) for group in groups) / 500
    assert expected_calibration_error(table, labels, bins) == pytest.approx(error)


@pytest.mark.parametrize("images", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("gain", [True, False])
def test_an_interval_of_gains_stays_where_gains_can_be(images, gain) -> None:
    labels = torch.zeros(images, dtype=torch.long)
    right, wrong = torch.tensor([[1.0, 0.0]] * images), torch.tensor([[0.0, 1.0]] * images)
    student, teacher = (right, wrong) if gain else (wrong, right)
    change, (low, high) = paired_change(Scores(labels, student, teacher, labels))
    assert change == (1.0 if gain else -1.0)
    assert -1 <= low < high <= 1
