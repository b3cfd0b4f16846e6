"""Statistics over seeds, tasks and images: spreads, ranks, paired differences with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist, fmean, stdev

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Accuracies = Mapping[Hashable, Mapping[str, FloatArray]]
"""Unit (a task, say) -> part ("base", ...) -> shares [..., S], a last axis over seeds."""

Statistic = Callable[[Accuracies], FloatArray]
"""From accuracies [..., S] to one number for each leading index, [...]. A part that it needs and
that is not there is a KeyError: the statistic does not exist then."""


@dataclass(frozen=True, eq=False)
class Answers:
    """Which test images were classified rightly, seed by seed.

    Args:
        right: [S, N]: 1 right, 0 wrong, NaN not tested (the image could not be read).
        images: N names that tell images apart; an image that is tested in several parts or units
            has one name.

    Raises:
        ValueError: another number of names than of columns.

    Example:
        >>> Answers(np.array([[1.0, 0.0], [1.0, 1.0]]), ("a.png", "b.png")).accuracy
        array([0.5, 1. ])
    """

    right: FloatArray
    images: Sequence[str]

    def __post_init__(self) -> None:
        if self.right.ndim != 2 or self.right.shape[1] != len(self.images):
            raise ValueError(f"answers {self.right.shape} do not fit {len(self.images)} images")

    @property
    def accuracy(self) -> FloatArray:
        """Share of the tested images that were right, for each seed [S]."""
        tested = ~np.isnan(self.right)
        return np.asarray(np.nansum(self.right, axis=1) / tested.sum(axis=1))


AnswersByUnit = Mapping[Hashable, Mapping[str, Answers]]
"""Unit -> part -> answers."""


@dataclass(frozen=True)
class Difference:
    """How much a method is better than the control, and the interval of that difference.

    With a single seed the interval is over images only, and `over_seeds` is false: it tells of the
    models that were trained, not of the methods.
    """

    value: float
    low: float
    high: float
    over_seeds: bool = True

    @property
    def is_clear(self) -> bool:
        """Whether the interval is over seeds and leaves zero out."""
        return self.over_seeds and (self.low > 0 or self.high < 0)


def mean_and_sd(values: Sequence[float]) -> tuple[float, float]:
    """Mean and sample standard deviation (n - 1); the latter is NaN for a single value.

    Raises:
        ValueError: no values.

    Example:
        >>> mean_and_sd([0.5, 0.75, 1.0])
        (0.75, 0.25)
    """
    if not values:
        raise ValueError("there is no mean of no values")
    return fmean(values), stdev(values) if len(values) > 1 else math.nan


def average_ranks(scores: npt.ArrayLike) -> FloatArray:
    """Rank of each method, 1 the best (the highest score), averaged over tasks.

    Equal scores share the mean of their ranks. A method that lacks a score (NaN) in some task has
    no rank, and the others are ranked without it.

    Args:
        scores: [tasks, methods].

    Returns:
        ranks [methods], NaN where there is none.

    Example:
        >>> average_ranks([[0.9, 0.7, 0.7], [0.6, 0.8, 0.5]])
        array([1.5 , 1.75, 2.75])
    """
    from scipy.stats import rankdata

    table = np.asarray(scores, dtype=np.float64)
    complete = ~np.isnan(table).any(axis=0)
    ranks = np.full(table.shape[1], np.nan)
    if complete.any():
        ranks[complete] = rankdata(-table[:, complete], axis=1).mean(axis=0)
    return ranks


def harmonic(base: FloatArray, novel: FloatArray) -> FloatArray:
    """Harmonic mean of two arrays of shares, element by element; 0 where either is 0.

    Example:
        >>> harmonic(np.array([0.6, 0.0]), np.array([0.6, 0.5]))
        array([0.6, 0. ])
    """
    total = base + novel
    return np.divide(2 * base * novel, total, out=np.zeros_like(total), where=total > 0)


def accuracies(answers: AnswersByUnit) -> dict[Hashable, dict[str, FloatArray]]:
    """The accuracy of each unit and part, for each seed [S]."""
    return {
        unit: {part: answered.accuracy for part, answered in parts.items()}
        for unit, parts in answers.items()
    }


def paired_differences(
    answers: Mapping[str, AnswersByUnit],
    control: str,
    statistics: Mapping[str, Statistic],
    *,
    confidence: float = 0.95,
) -> dict[str, dict[str, Difference]]:
    """Differences of every method to the control, with intervals over seeds and images.

    The methods have the same seeds and images, so that what they share cancels. What a repetition
    of the experiment would change comes in two parts, each with its own estimate of the variance:

    - Seeds. V_s is the jackknife's variance of the difference over the S seeds, for a statistic
      that is a mean the squared deviation of the seeds' differences over S − 1, divided by S. A
      seed is left out of all units at once: it may mean the same start in each of them.
    - Images. V_i is the variance of the sum over images of each image's influence (the first
      derivative of the statistic, averaged over seeds), with half a case added to either side of
      each test set, as Agresti and Min do: without it few images, or none, that are answered
      differently give an interval that is much too short. An image counts once wherever it is
      tested. What an image and a seed do together, V_e, is in both V_s and V_i, and is taken off
      V_i.

    The half width is √(t² V_s + z² (V_i − V_e)), t Student's quantile for S − 1 degrees of freedom
    and z the normal one (Banerjee): its coverage is at least the nominal one however the variance
    is divided, if the seeds' part is normal. t is 4.3 for three seeds and 12.7 for two. It is
    never below z √V_i, the one over images only, and that is what a single seed gets.

    The units (tasks) are fixed: an interval tells nothing of other tasks.

    Args:
        answers: method -> unit -> part -> answers; the same units, seeds and images for every
            method, though a method may lack a part.
        control: the method to compare with.
        statistics: what to compare, by name.
        confidence: coverage of the interval, in 0..1.

    Returns:
        method -> statistic -> difference, without the control and without statistics that do not
        exist for the method or for the control.

    Raises:
        ValueError: units with different numbers of seeds.

    References:
        S. K. Banerjee, "On confidence interval for two-means problem based on separate estimates
        of variances and tabulated values of t-table", Sankhya A 23 (1961).
        A. Agresti, Y. Min, "Simple improved confidence intervals for comparing matched
        proportions", Statistics in Medicine 24 (2005).
        A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007): that V_s +
        V_i counts V_e twice.

    Example:
        >>> def one(right):
        ...     return {"task": {"test": Answers(np.array(right, dtype=float), tuple("abcd"))}}
        >>> both = {"new": one([[1, 1, 1, 0]] * 2), "old": one([[1, 0, 1, 0]] * 2)}
        >>> mean = {"mean": lambda found: found["task"]["test"].mean(axis=-1)}
        >>> gap = paired_differences(both, "old", mean)["new"]["mean"]
        >>> gap.value, gap.is_clear
        (0.25, False)
    """
    counts = {
        len(answered.right)
        for units in answers.values()
        for parts in units.values()
        for answered in parts.values()
    }
    if len(counts) != 1:
        raise ValueError(f"every unit needs the same seeds, not {sorted(counts)} of them")
    seeds = counts.pop()
    influences = _Influences(answers, seeds)
    shares = {method: accuracies(units) for method, units in answers.items()}
    observed = _evaluate(shares, statistics)
    without = {name: _without_each_seed(own, seeds) for name, own in shares.items()}
    jackknifed = _evaluate(without, statistics) if seeds > 1 else {}  # [S]

    def difference(method: str, name: str) -> Difference:
        slopes = ((m, _gradient(shares[m], statistics[name])) for m in (method, control))
        of_images, of_both = influences.variances(*slopes)
        of_seeds = None
        if seeds > 1:
            gaps = jackknifed[method][name] - jackknifed[control][name]
            of_seeds = float((seeds - 1) * gaps.var())
        half = _half_width(of_seeds, of_images, of_both, seeds, confidence)
        gap = float(observed[method][name] - observed[control][name])
        return Difference(gap, max(gap - half, -1.0), min(gap + half, 1.0), over_seeds=seeds > 1)

    return {
        method: {name: difference(method, name) for name in values if name in observed[control]}
        for method, values in observed.items()
        if method != control
    }


def _half_width(
    of_seeds: float | None, of_images: float, of_both: float, seeds: int, confidence: float
) -> float:
    """See `paired_differences`; `of_seeds` is None for a single seed."""
    from scipy.stats import t

    z = NormalDist().inv_cdf((1 + confidence) / 2)
    least = z**2 * of_images
    if of_seeds is None:
        return math.sqrt(least)
    quantile = float(t.ppf((1 + confidence) / 2, seeds - 1))
    square = quantile**2 * of_seeds + z**2 * max(of_images - of_both, 0.0)
    return math.sqrt(max(square, least))


def _without_each_seed(shares: Accuracies, seeds: int) -> dict[Hashable, dict[str, FloatArray]]:
    """Accuracies [S, S − 1], each row without one of the S seeds."""
    others = np.array([[s for s in range(seeds) if s != out] for out in range(seeds)], dtype=int)
    return {
        unit: {part: values[others] for part, values in parts.items()}
        for unit, parts in shares.items()
    }


def _gradient(shares: Accuracies, statistic: Statistic) -> dict[tuple[Hashable, str], FloatArray]:
    """Derivative of a statistic by each accuracy, (unit, part) -> [S]; central differences."""
    keys = [(unit, part) for unit, parts in shares.items() for part in parts]
    seeds = len(shares[keys[0][0]][keys[0][1]])
    step = 1e-5
    moved: dict[Hashable, dict[str, FloatArray]] = {unit: {} for unit in shares}
    for place, (unit, part) in enumerate(keys):
        values = np.empty((2, len(keys), seeds, seeds))  # [sign, what is moved, its seed, S]
        values[:] = shares[unit][part]
        values[0, place] += step * np.eye(seeds)
        values[1, place] -= step * np.eye(seeds)
        moved[unit][part] = values
    up, down = statistic(moved)
    slopes = (up - down) / (2 * step)  # [what is moved, S]
    return dict(zip(keys, slopes, strict=True))


class _Influences:
    """What each image does to a difference of two methods.

    Args:
        answers: as `paired_differences` has them.
        seeds: how many.
    """

    def __init__(self, answers: Mapping[str, AnswersByUnit], seeds: int) -> None:
        self.answers, self.seeds = answers, seeds
        places: dict[str, int] = {}
        self.columns: dict[tuple[Hashable, str], npt.NDArray[np.int64]] = {}
        sets: dict[tuple[int, ...], int] = {}
        self.test_set: dict[tuple[Hashable, str], int] = {}
        for units in answers.values():
            for unit, parts in units.items():
                for part, answered in parts.items():
                    if (unit, part) in self.columns:
                        continue
                    own = [places.setdefault(image, len(places)) for image in answered.images]
                    self.columns[unit, part] = np.array(own, dtype=np.int64)
                    self.test_set[unit, part] = sets.setdefault(tuple(own), len(sets))
        self.images = len(places)

    def variances(
        self, *sides: tuple[str, Mapping[tuple[Hashable, str], FloatArray]]
    ) -> tuple[float, float]:
        """The variance that images bring, and the part of it that they bring with seeds.

        Args:
            sides: the method and then the control, with the gradients of the statistic.
        """
        influence = np.zeros((self.images, self.seeds))
        added: dict[int, float] = {}  # test set -> how much a whole case would move the statistic
        for sign, (method, gradient) in zip((1, -1), sides, strict=True):
            weights: dict[int, float] = {}
            for (unit, part), slopes in gradient.items():
                if not slopes.any():
                    continue
                answered = self.answers[method][unit][part]
                tested = ~np.isnan(answered.right)  # [S, N]
                centred = np.where(tested, answered.right - answered.accuracy[:, None], 0.0)
                own = slopes[:, None] * centred / tested.sum(axis=1, keepdims=True)  # [S, N]
                np.add.at(influence, self.columns[unit, part], sign * own.T)
                test_set = self.test_set[unit, part]
                case = abs(float(slopes.sum())) / (answered.right.shape[1] + 2)
                weights[test_set] = weights.get(test_set, 0.0) + case
            added = {k: max(added.get(k, 0.0), weights.get(k, 0.0)) for k in {**added, **weights}}
        of_image = influence.sum(axis=1)
        extra = math.fsum(case**2 for case in added.values())  # half a case on either side
        of_images = float(of_image @ of_image) + extra
        if self.seeds == 1:
            return of_images, 0.0
        alone = influence - influence.mean(axis=1, keepdims=True)
        return of_images, float((alone**2).sum() * self.seeds / (self.seeds - 1))


def _evaluate(
    methods: Mapping[str, Accuracies], statistics: Mapping[str, Statistic]
) -> dict[str, dict[str, FloatArray]]:
    """method -> statistic -> its values, without those that do not exist."""
    values: dict[str, dict[str, FloatArray]] = {}
    for method, shares in methods.items():
        values[method] = {}
        for name, statistic in statistics.items():
            try:
                values[method][name] = statistic(shares)
            except KeyError:
                continue
    return values
