"""Statistics over seeds, tasks and images: spreads, ranks, paired differences with an interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]

Accuracies = Mapping[Hashable, Mapping[str, FloatArray]]
"""Unit (a task, say) -> part ("base", ...) -> shares [..., S], a last axis over seeds."""

Statistic = Callable[[Accuracies], FloatArray]
"""From accuracies [..., S] to one number for each leading index, [...]. A part that it needs and
that is not there is a KeyError: the statistic does not exist then."""

_CHUNK = 100  # replicates at a time, which bounds the memory


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
    """How much a method is better than the control, and the interval of that difference."""

    value: float
    low: float
    high: float

    @property
    def is_clear(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.low > 0 or self.high < 0


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
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return mean, math.nan
    return mean, math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))


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
        unit: {part: found.accuracy for part, found in parts.items()}
        for unit, parts in answers.items()
    }


def paired_bootstrap(
    answers: Mapping[str, AnswersByUnit],
    control: str,
    statistics: Mapping[str, Statistic],
    *,
    replicates: int = 2000,
    confidence: float = 0.95,
    seed: int = 0,
) -> dict[str, dict[str, Difference]]:
    """Differences of every method to the control, with percentile intervals.

    Each replicate draws anew what would be different in a repetition of the experiment, and the
    same for every method, so that what they share cancels: in each unit S seeds with replacement,
    and for the images the weights of the Bayesian bootstrap (independent, exponential with mean 1).
    An image has one weight wherever it is tested. The units (tasks) are fixed: an interval tells
    nothing of other tasks. Seeds and images are drawn independently of each other, which gives
    intervals that are a little too wide rather than too narrow where both matter; seeds alone are
    too few to be estimated well (three seeds, three values).

    Args:
        answers: method -> unit -> part -> answers; the same units, seeds and images for every
            method, though a method may lack a part.
        control: the method to compare with.
        statistics: what to compare, by name.
        replicates: how many.
        confidence: coverage of the interval, in 0..1.
        seed: of the draws; the result is a function of the arguments.

    Returns:
        method -> statistic -> difference, without the control and without statistics that do not
        exist for the method or for the control.

    References:
        D. B. Rubin, "The Bayesian bootstrap", Annals of Statistics 9 (1981).
        A. B. Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1 (2007).
    """
    drawn: dict[str, dict[str, list[FloatArray]]] = {}
    for replicate in _replicates(answers, replicates, seed):
        for method, values in _evaluate(replicate, statistics).items():
            for name, value in values.items():
                drawn.setdefault(method, {}).setdefault(name, []).append(value)
    observed = _evaluate({m: accuracies(found) for m, found in answers.items()}, statistics)

    tail = (1 - confidence) / 2
    found: dict[str, dict[str, Difference]] = {}
    for method, values in observed.items():
        if method == control:
            continue
        found[method] = {}
        for name in values.keys() & observed[control].keys():
            gaps = np.concatenate(drawn[method][name]) - np.concatenate(drawn[control][name])
            low, high = np.quantile(gaps, (tail, 1 - tail))
            gap = float(values[name] - observed[control][name])
            found[method][name] = Difference(gap, float(low), float(high))
    return found


def _evaluate(
    found: Mapping[str, Accuracies], statistics: Mapping[str, Statistic]
) -> dict[str, dict[str, FloatArray]]:
    """method -> statistic -> its values, without those that do not exist."""
    values: dict[str, dict[str, FloatArray]] = {}
    for method, shares in found.items():
        values[method] = {}
        for name, statistic in statistics.items():
            try:
                values[method][name] = statistic(shares)
            except KeyError:
                continue
    return values


def _replicates(
    answers: Mapping[str, AnswersByUnit], replicates: int, seed: int
) -> Iterator[dict[str, dict[Hashable, dict[str, FloatArray]]]]:
    """method -> unit -> part -> resampled accuracies [R, S], R replicates at a time."""
    generator = np.random.default_rng(seed)
    seeds: dict[Hashable, int] = {}
    places: dict[str, int] = {}
    for units in answers.values():
        for unit, parts in units.items():
            for found in parts.values():
                seeds[unit] = len(found.right)
                for image in found.images:
                    places.setdefault(image, len(places))
    columns: dict[tuple[Hashable, str], npt.NDArray[np.int64]] = {
        (unit, part): np.array([places[image] for image in found.images])
        for units in answers.values()
        for unit, parts in units.items()
        for part, found in parts.items()
    }
    for start in range(0, replicates, _CHUNK):
        count = min(_CHUNK, replicates - start)
        weights = generator.exponential(size=(count, len(places)))  # [R, images]
        chosen = {unit: generator.integers(s, size=(count, s)) for unit, s in seeds.items()}
        resampled: dict[str, dict[Hashable, dict[str, FloatArray]]] = {}
        for method, units in answers.items():
            resampled[method] = {}
            for unit, parts in units.items():
                resampled[method][unit] = {}
                for part, found in parts.items():
                    own = weights[:, columns[unit, part]]  # [R, N]
                    tested = ~np.isnan(found.right)  # [S, N]
                    shares = own @ np.nan_to_num(found.right).T / (own @ tested.T)  # [R, S]
                    by_seed = np.take_along_axis(shares, chosen[unit], axis=1)
                    resampled[method][unit][part] = by_seed
        yield resampled
