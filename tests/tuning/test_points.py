"""The front and the recommendation, against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptot.experiments.tuning import Point, pareto_front, recommend

shares = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0])
points = st.lists(
    st.builds(
        lambda right, kept: Point({}, right, kept, 8),
        st.text("01", min_size=8, max_size=8),
        shares,
    ),
    min_size=1,
    max_size=9,
)


def beats(one: Point, other: Point) -> bool:
    better = one.fit > other.fit or one.retention > other.retention
    return one.fit >= other.fit and one.retention >= other.retention and better


@given(points)
def test_the_front_is_what_no_point_beats(found: list[Point]) -> None:
    front = pareto_front(found)
    kept = [found[place] for place in front]
    assert not any(beats(other, point) for point in kept for other in found)
    for point in found:
        same = [p for p in kept if (p.fit, p.retention) == (point.fit, point.retention)]
        assert len(same) == (0 if any(beats(other, point) for other in found) else 1)
    assert [p.retention for p in kept] == sorted(p.retention for p in kept)


@given(points)
def test_the_recommended_point_is_near_the_best_and_keeps_most(found: list[Point]) -> None:
    chosen = found[recommend(found)]
    best = max(point.fit for point in found)
    assert chosen.fit >= best - 0.5
    assert not any(p.fit >= chosen.fit and p.retention > chosen.retention for p in found)


def test_a_point_beyond_one_standard_error_is_not_recommended() -> None:
    best = Point({}, "1" * 90 + "0" * 10, 0.5, 100)
    # 20 images worse: the standard error of the difference is 4 points.
    worse = Point({}, "1" * 70 + "0" * 30, 1.0, 100)
    # 1 image better, 3 worse: a difference of 2 points with an error of 2.
    near = Point({}, "1" * 87 + "0" * 3 + "1" + "0" * 9, 0.9, 100)
    assert recommend([best, worse]) == 0
    assert recommend([best, worse, near]) == 2


def test_there_must_be_a_point() -> None:
    with pytest.raises(ValueError, match="no point"):
        recommend([])
