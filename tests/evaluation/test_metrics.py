from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import binomtest, hmean
from sklearn.metrics import accuracy_score, recall_score

from promptot.evaluation import metrics
from promptot.evaluation.calibration import expected_calibration_error


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray]:
    """Logits [200, 7] that are right more often than not, and labels [200]."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 7, 200)
    return generator.normal(size=(200, 7)) + 1.5 * np.eye(7)[labels], labels


def test_accuracy_is_scikit_learns(answers):
    logits, labels = answers
    assert metrics.accuracy(logits, labels) == accuracy_score(labels, logits.argmax(1))
    assert 0.5 < metrics.accuracy(logits, labels) < 0.9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_tensors_arrays_and_predictions_agree(answers, dtype):
    tensor = torch.tensor(answers[0], dtype=dtype, requires_grad=True)
    labels = torch.tensor(answers[1])
    expected = metrics.accuracy(tensor.detach().double().numpy(), answers[1])
    assert metrics.accuracy(tensor, labels) == expected
    assert metrics.accuracy(tensor.argmax(1), answers[1].tolist()) == expected


def test_per_class_accuracy_is_recall(answers):
    logits, labels = answers
    expected = recall_score(labels, logits.argmax(1), average=None)
    np.testing.assert_allclose(metrics.per_class_accuracy(logits, labels, 7), expected)
    with_empty = metrics.per_class_accuracy(logits, labels, 9)
    np.testing.assert_allclose(with_empty[:7], expected)
    assert np.isnan(with_empty[7:]).all()


def test_confusion_counts_row_right_column_predicted(answers):
    logits, labels = answers
    counts = metrics.confusion(logits, labels, 7)
    expected = np.zeros((7, 7), int)
    for right, predicted in zip(labels, logits.argmax(1), strict=True):
        expected[right, predicted] += 1
    np.testing.assert_array_equal(counts, expected)
    assert not np.array_equal(counts, counts.T)


@pytest.mark.parametrize(
    ("predictions", "labels", "says"),
    [([0, 5], [0, 1], "prediction 5"), ([0, 1], [0, -1], "label -1")],
)
def test_confusion_refuses_unknown_classes(predictions, labels, says):
    with pytest.raises(ValueError, match=says):
        metrics.confusion(predictions, labels, 3)


@pytest.mark.parametrize(
    ("scores", "labels"),
    [
        ([], []),
        ([0, 1], [0]),
        ([0.5, 1.0], [0, 1]),
        ([[float("nan"), 1.0]], [0]),
        ([[0.1, 0.9]], [0.0]),
        ([[[1.0]]], [0]),
        ([[1.0, 0.0], [0.0, 1.0]], [[0, 1]]),
    ],
)
def test_impossible_input_is_refused(scores, labels):
    with pytest.raises(ValueError):
        metrics.accuracy(scores, labels)


@given(st.integers(1, 400).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_is_scipys(counts):
    correct, total = counts
    expected = binomtest(correct, total).proportion_ci(0.9, method="wilson")
    low, high = metrics.wilson_interval(correct, total, 0.9)
    assert (low, high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert 0 <= low <= correct / total <= high <= 1


@pytest.mark.parametrize(
    ("correct", "total", "level"), [(3, 2, 0.9), (-1, 2, 0.9), (0, 0, 0.9), (1, 2, 1)]
)
def test_wilson_interval_refuses_nonsense(correct, total, level):
    with pytest.raises(ValueError):
        metrics.wilson_interval(correct, total, level)


shares = st.floats(0.001, 1)


@given(st.lists(st.tuples(shares, shares), min_size=1, max_size=11))
def test_harmonic_means_over_data_sets(pairs):
    base, novel = zip(*pairs, strict=True)
    of_averages = metrics.harmonic_mean_of_averages(base, novel)
    averaged = metrics.average_of_harmonic_means(base, novel)
    assert of_averages == pytest.approx(hmean([np.mean(base), np.mean(novel)]))
    assert averaged == pytest.approx(np.mean(hmean(np.array(pairs), axis=1)))
    assert averaged <= of_averages + 1e-12


def test_harmonic_mean_of_a_published_average():
    # IVLP, 11 data sets, ViT-B/16: 84.21 base, 71.79 novel, 77.51 harmonic mean
    assert round(100 * metrics.harmonic_mean(0.8421, 0.7179), 2) == 77.51


def test_harmonic_mean_at_its_edges():
    assert metrics.harmonic_mean(0.0, 0.0) == 0.0
    assert metrics.harmonic_mean(0.0, 1.0) == 0.0
    for base, novel in [(-0.1, 0.5), (0.5, float("nan"))]:
        with pytest.raises(ValueError):
            metrics.harmonic_mean(base, novel)
    for function in (metrics.harmonic_mean_of_averages, metrics.average_of_harmonic_means):
        with pytest.raises(ValueError):
            function([], [])
        with pytest.raises(ValueError):
            function([0.5], [0.5, 0.5])


def calibration_error_by_hand(probabilities, labels, bins):
    """Equation 3 as it is written: bins one by one."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for number in range(bins):
        inside = (confidence > number / bins) & (confidence <= (number + 1) / bins)
        if inside.any():
            error += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return error


@pytest.mark.parametrize("bins", [1, 10, 15])
@pytest.mark.parametrize("sharpness", [0.3, 1.0, 4.0])
def test_calibration_error_is_the_papers(answers, bins, sharpness):
    logits, labels = answers
    probabilities = softmax(sharpness * logits, axis=1)
    expected = calibration_error_by_hand(probabilities, labels, bins)
    tensor = torch.from_numpy(probabilities)
    assert expected_calibration_error(tensor, labels, bins) == pytest.approx(expected)


def test_calibration_error_of_certain_answers():
    certain = np.eye(2)[[0, 0, 1, 1]]
    assert expected_calibration_error(certain, [0, 0, 1, 1]) == 0
    assert expected_calibration_error(certain, [0, 1, 1, 1]) == pytest.approx(0.25)


def test_calibration_error_refuses_logits_and_no_bins():
    with pytest.raises(ValueError, match="sum to 1"):
        expected_calibration_error([[3.0, -1.0]], [0])
    with pytest.raises(ValueError, match="bin"):
        expected_calibration_error([[1.0, 0.0]], [0], bins=0)
