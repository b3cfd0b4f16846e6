"""Statistics against plain computations, and what a paired bootstrap must do."""

from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from promptot.evaluation.metrics import harmonic_mean
from promptot.evaluation.statistics import (
    Answers,
    accuracies,
    average_ranks,
    harmonic,
    mean_and_sd,
    paired_bootstrap,
)

NAN = float("nan")


def mean_of(part):
    return lambda found: np.mean([unit[part].mean(axis=-1) for unit in found.values()], axis=0)


def answers(right, prefix=""):
    right = np.atleast_2d(np.asarray(right, dtype=float))
    return Answers(right, [f"{prefix}{i}" for i in range(right.shape[1])])


def test_mean_and_sd_are_the_textbook_ones():
    values = [0.71, 0.74, 0.69, 0.80]
    mean, sd = mean_and_sd(values)
    assert mean == pytest.approx(statistics.mean(values))
    assert sd == pytest.approx(statistics.stdev(values))
    assert math.isnan(mean_and_sd([0.5])[1])
    with pytest.raises(ValueError, match="no values"):
        mean_and_sd([])


def test_ranks_are_counted():
    scores = np.array([[0.9, 0.7, 0.7, 0.1], [0.2, 0.4, 0.3, 0.4], [0.5, 0.5, 0.5, 0.5]])
    counted = [
        np.mean(
            [
                1 + sum(other > row[i] for other in row) + (sum(o == row[i] for o in row) - 1) / 2
                for row in scores
            ]
        )
        for i in range(4)
    ]
    assert average_ranks(scores) == pytest.approx(counted)
    assert sum(average_ranks(scores)) == pytest.approx(1 + 2 + 3 + 4)


def test_who_lacks_a_score_has_no_rank_and_takes_none():
    ranks = average_ranks([[0.9, NAN, 0.5], [0.1, 0.8, 0.5]])
    assert ranks[0] == 1.5
    assert ranks[2] == 1.5
    assert math.isnan(ranks[1])


def test_harmonic_is_that_of_the_metrics():
    base, novel = np.array([0.7, 0.0, 0.5]), np.array([0.3, 0.0, 0.0])
    expected = [harmonic_mean(b, n) for b, n in zip(base, novel, strict=True)]
    assert harmonic(base, novel) == pytest.approx(expected)


def test_images_that_were_not_read_do_not_count():
    found = accuracies({"t": {"test": answers([[1, 0, NAN, 1], [NAN, NAN, NAN, 0]])}})
    assert found["t"]["test"] == pytest.approx([2 / 3, 0.0])
    with pytest.raises(ValueError, match="do not fit"):
        Answers(np.zeros((1, 2)), ["a"])


def test_the_difference_is_the_plain_one_and_the_interval_the_known_one():
    """One seed, one part: the Bayesian bootstrap of a mean has a variance in closed form."""
    generator = np.random.default_rng(3)
    a, b = generator.integers(0, 2, (2, 400)).astype(float)
    found = paired_bootstrap(
        {"a": {"t": {"x": answers(a)}}, "b": {"t": {"x": answers(b)}}},
        "b",
        {"x": mean_of("x")},
        replicates=4000,
    )["a"]["x"]
    gaps = a - b
    sd = math.sqrt(gaps.var() / (len(gaps) + 1))
    assert found.value == pytest.approx(gaps.mean())
    assert found.low == pytest.approx(gaps.mean() - 1.96 * sd, abs=0.15 * sd)
    assert found.high == pytest.approx(gaps.mean() + 1.96 * sd, abs=0.15 * sd)


def test_with_all_images_alike_the_interval_is_that_of_drawn_seeds():
    """Three seeds with differences 0, 0 and 1: their mean over draws with replacement."""
    method = {"t": {"x": answers([[0, 0], [0, 0], [1, 1]])}}
    control = {"t": {"x": answers(np.zeros((3, 2)))}}
    found = paired_bootstrap({"m": method, "c": control}, "c", {"x": mean_of("x")})["m"]["x"]
    # Of 27 draws, 8 have no 1 and 1 has three of them: both ends lie outside 2.5 %.
    assert (found.value, found.low, found.high) == pytest.approx((1 / 3, 0.0, 1.0))
    assert not found.is_clear


def test_pairs_cancel_what_they_share():
    same = np.random.default_rng(0).integers(0, 2, (3, 50))
    units = {"t": {"x": answers(same)}}
    found = paired_bootstrap({"a": units, "b": units}, "a", {"x": mean_of("x")})["b"]["x"]
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize(("prefix", "cancels"), [("", True), ("other ", False)])
def test_an_image_weighs_the_same_in_every_unit(prefix, cancels):
    """Right in one unit and wrong in the other; they cancel only where the images are the same."""
    ones, zeros = np.eye(40)[:, :1].T, 1 - np.eye(40)[:, :1].T
    method = {"t": {"x": answers(ones)}, "u": {"x": answers(zeros, prefix)}}
    control = {"t": {"x": answers(zeros)}, "u": {"x": answers(ones, prefix)}}
    found = paired_bootstrap({"m": method, "c": control}, "c", {"x": mean_of("x")})["m"]["x"]
    assert found.value == pytest.approx(0.0)
    assert (found.high - found.low < 1e-12) is cancels


def test_what_a_method_can_not_be_asked_is_left_out():
    whole = {"t": {"base": answers([1, 0]), "novel": answers([1, 1])}}
    half = {"t": {"base": answers([1, 1])}}
    asked = {"base": mean_of("base"), "novel": mean_of("novel")}
    found = paired_bootstrap({"probe": half, "whole": whole}, "whole", asked)
    assert found["probe"].keys() == {"base"}
    assert found["probe"]["base"].value == 0.5
    found = paired_bootstrap({"probe": half, "whole": whole}, "probe", asked)
    assert found["whole"].keys() == {"base"}


def test_the_draws_depend_on_their_seed_alone():
    generator = np.random.default_rng(1)
    units = [{"t": {"x": answers(generator.integers(0, 2, (2, 30)))}} for _ in range(3)]
    two = dict(zip("ab", units[:2], strict=True))
    three = dict(zip("abc", units, strict=True))
    first = paired_bootstrap(two, "a", {"x": mean_of("x")})
    assert paired_bootstrap(two, "a", {"x": mean_of("x")}) == first
    assert paired_bootstrap(two, "a", {"x": mean_of("x")}, seed=1) != first
    assert paired_bootstrap(three, "a", {"x": mean_of("x")})["b"] == first["b"]
