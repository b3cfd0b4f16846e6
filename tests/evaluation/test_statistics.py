"""Statistics against plain computations, and what intervals of differences must do."""

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
    paired_differences,
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


def compared(method, control, statistic=None, **options):
    statistic = statistic or mean_of("x")
    return paired_differences({"m": method, "c": control}, "c", {"x": statistic}, **options)["m"][
        "x"
    ]


def test_the_difference_is_the_plain_one_and_one_seed_has_the_interval_over_images():
    """One seed, one part: the paired interval in closed form, half a case on either side."""
    generator = np.random.default_rng(3)
    a, b = generator.integers(0, 2, (2, 400)).astype(float)
    found = compared({"t": {"x": answers(a)}}, {"t": {"x": answers(b)}})
    gaps = a - b
    half = 1.959964 * math.sqrt(gaps.var() / len(gaps) + 1 / (len(gaps) + 2) ** 2)
    assert found.value == pytest.approx(gaps.mean())
    assert found.low == pytest.approx(gaps.mean() - half)
    assert found.high == pytest.approx(gaps.mean() + half)
    assert not found.over_seeds


def test_one_seed_is_never_clear():
    ones, zeros = answers(np.ones(200)), answers(np.zeros(200))
    found = compared({"t": {"x": ones}}, {"t": {"x": zeros}})
    assert found.low > 0.9
    assert not found.is_clear
    both = [{"t": {"x": answers([side.right[0]] * 2)}} for side in (ones, zeros)]
    assert compared(*both).is_clear


def anova(gaps):
    """Mean squares of a two-way table [S, N]: of seeds, of images and of what is left."""
    s, n = gaps.shape
    rows, columns = gaps.mean(axis=1), gaps.mean(axis=0)
    left = gaps - rows[:, None] - columns + gaps.mean()
    return (
        n * rows.var(ddof=1),
        s * columns.var(ddof=0),
        (left**2).sum() / (s - 1) / n,
    )


@pytest.mark.parametrize(("seeds", "t"), [(2, 12.7062), (3, 4.302653), (5, 2.776445)])
def test_few_seeds_have_the_interval_of_the_variance_components(seeds, t):
    """Against the mean squares of a two-way analysis of variance."""
    generator = np.random.default_rng(seeds)
    level = 0.5 + 0.02 * generator.standard_normal((2, seeds, 1))
    right = (generator.random((2, seeds, 900)) < level).astype(float)
    found = compared(*({"t": {"x": answers(side)}} for side in right))
    gaps = right[0] - right[1]
    of_seeds, of_images, left = (m / gaps.size for m in anova(gaps))
    extra = 1 / 902**2
    square = t**2 * of_seeds + 1.959964**2 * max(of_images + extra - left, 0)
    half = math.sqrt(max(square, 1.959964**2 * (of_images + extra)))
    assert found.value == pytest.approx(gaps.mean())
    assert found.high - found.value == pytest.approx(half, rel=1e-5)
    assert found.value - found.low == pytest.approx(half, rel=1e-5)
    assert found.over_seeds


def test_with_all_images_alike_the_interval_is_that_of_student():
    """Three seeds with differences 0, 0.25 and 0.5, each the same on all of many images."""
    right = np.zeros((3, 4000))
    right[1, ::4] = 1
    right[2, ::2] = 1
    gaps = right.mean(axis=1)
    found = compared({"t": {"x": answers(right)}}, {"t": {"x": answers(np.zeros((3, 4000)))}})
    half = 4.302653 * statistics.stdev(gaps) / math.sqrt(3)
    assert found.high - found.value == pytest.approx(half, rel=1e-3)
    assert not found.is_clear


def test_seeds_are_not_taken_for_independent_from_task_to_task():
    """A seed that is good in one task and in its copy is one seed."""
    generator = np.random.default_rng(0)
    level = np.array([0.5, 0.6, 0.8])[:, None]
    one, two = (generator.random((2, 3, 20_000)) < level).astype(float)
    zeros = np.zeros((3, 20_000))
    half = []
    for sides in ([one], [one, two]):
        method = {i: {"x": answers(side, f"{i} ")} for i, side in enumerate(sides)}
        control = {i: {"x": answers(zeros, f"{i} ")} for i in range(len(sides))}
        found = compared(method, control)
        half.append(found.high - found.value)
    assert half[1] == pytest.approx(half[0], rel=0.05)


def test_pairs_cancel_what_they_share():
    """Nothing is left but that other images may be answered differently: half a case a side."""
    same = np.random.default_rng(0).integers(0, 2, (3, 50))
    units = {"t": {"x": answers(same)}}
    found = compared(units, units)
    assert found.value == 0.0
    assert found.high == pytest.approx(1.959964 / 52)
    assert found.low == pytest.approx(-1.959964 / 52)


@pytest.mark.parametrize(("prefix", "cancels"), [("", True), ("other ", False)])
def test_an_image_weighs_the_same_in_every_unit(prefix, cancels):
    """Right in one unit and wrong in the other; they cancel only where the images are the same."""
    half = np.arange(400) % 2
    ones, zeros = half[None], 1 - half[None]
    method = {"t": {"x": answers(ones)}, "u": {"x": answers(zeros, prefix)}}
    control = {"t": {"x": answers(zeros)}, "u": {"x": answers(ones, prefix)}}
    found = compared(method, control)
    assert found.value == pytest.approx(0.0)
    width = 2 * 1.959964 / 402 if cancels else 2 * 1.959964 * math.sqrt(1 / 800 + 1 / 2 / 402**2)
    assert found.high - found.low == pytest.approx(width)


@pytest.mark.parametrize("images", [1, 2, 5])
def test_an_interval_of_differences_stays_where_differences_can_be(images):
    ones, zeros = (answers([[value] * images] * 2) for value in (1.0, 0.0))
    found = compared({"t": {"x": ones}}, {"t": {"x": zeros}})
    assert found.value == 1.0
    assert -1 <= found.low < found.high == 1.0


def test_images_that_were_not_read_leave_the_interval_to_the_others():
    generator = np.random.default_rng(1)
    a, b = generator.integers(0, 2, (2, 3, 50)).astype(float)
    whole = compared({"t": {"x": answers(a)}}, {"t": {"x": answers(b)}})
    lacking = [np.concatenate([side, np.full((3, 9), NAN)], axis=1) for side in (a, b)]
    found = compared(*({"t": {"x": answers(side)}} for side in lacking))
    assert found.value == pytest.approx(whole.value)
    assert found.high == pytest.approx(whole.high, rel=0.01)


def test_a_harmonic_mean_has_the_interval_of_its_derivative():
    """Delta method by hand: one seed, base and novel of other sizes."""
    generator = np.random.default_rng(2)
    base, novel = generator.random((2, 300)) < 0.8, generator.random((2, 200)) < 0.6
    sides = [
        {"t": {"base": answers(base[i], "b"), "novel": answers(novel[i], "n")}} for i in (0, 1)
    ]
    found = compared(*sides, lambda f: harmonic(*(f["t"][p].mean(axis=-1) for p in BOTH)))
    square, extra = 0.0, 0.0
    for right, other in ((base, novel), (novel, base)):
        n = right.shape[1]
        slopes = [
            2 * other[i].mean() ** 2 / (right[i].mean() + other[i].mean()) ** 2 for i in (0, 1)
        ]
        centred = [slopes[i] * (right[i] - right[i].mean()) for i in (0, 1)]
        square += (centred[0] - centred[1]).var() / n
        extra += (max(slopes) / (n + 2)) ** 2
    assert found.high - found.value == pytest.approx(1.959964 * math.sqrt(square + extra), rel=1e-6)


BOTH = ("base", "novel")


def test_what_a_method_can_not_be_asked_is_left_out():
    whole = {"t": {"base": answers([1, 0]), "novel": answers([1, 1])}}
    half = {"t": {"base": answers([1, 1])}}
    asked = {"base": mean_of("base"), "novel": mean_of("novel")}
    found = paired_differences({"probe": half, "whole": whole}, "whole", asked)
    assert found["probe"].keys() == {"base"}
    assert found["probe"]["base"].value == 0.5
    found = paired_differences({"probe": half, "whole": whole}, "probe", asked)
    assert found["whole"].keys() == {"base"}


def test_units_with_other_numbers_of_seeds_are_refused():
    units = {"t": {"x": answers([[1, 0]])}, "u": {"x": answers([[1, 0], [0, 1]])}}
    with pytest.raises(ValueError, match="same seeds"):
        compared(units, units)


def test_a_third_method_changes_nothing():
    generator = np.random.default_rng(1)
    units = [{"t": {"x": answers(generator.integers(0, 2, (2, 30)))}} for _ in range(3)]
    two = dict(zip("ab", units[:2], strict=True))
    three = dict(zip("abc", units, strict=True))
    first = paired_differences(two, "a", {"x": mean_of("x")})
    assert paired_differences(two, "a", {"x": mean_of("x")}) == first
    assert paired_differences(three, "a", {"x": mean_of("x")})["b"] == first["b"]
