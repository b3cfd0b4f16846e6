"""Statistics over the units (task and shots) and seeds of a benchmark."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

from promptot.evaluation.statistics import Accuracies, FloatArray, Statistic, harmonic


def mean_of(part: str) -> Statistic:
    """The mean accuracy on a part over units and seeds."""
    return lambda found: _mean([unit[part] for unit in found.values()])


def mean_of_all(prefix: str) -> Statistic:
    """The mean over the parts whose names start so: in each unit first, then over units."""

    def value(found: Accuracies) -> FloatArray:
        units = []
        for unit in found.values():
            shares = [value for part, value in unit.items() if part.startswith(prefix)]
            if not shares:
                raise KeyError(prefix)
            units.append(np.asarray(np.mean(shares, axis=0)))
        return _mean(units)

    return value


def mean_of_domain(part: str) -> Statistic:
    """The mean accuracy on a part over the units that have it."""
    return lambda found: _mean([unit[part] for unit in found.values() if part in unit])


def mean_at(shots: int, part: str) -> Statistic:
    """The mean accuracy on a part over the units (task, shots) with this many shots."""

    def value(found: Accuracies) -> FloatArray:
        return mean_of(part)({u: p for u, p in found.items() if _shots(u) == shots})

    return value


def harmonic_of_averages(found: Accuracies) -> FloatArray:
    """Average base and novel over units and seeds, then take the harmonic mean."""
    return harmonic(mean_of("base")(found), mean_of("novel")(found))


def average_of_harmonics(found: Accuracies) -> FloatArray:
    """Take the harmonic mean in each unit and seed, then average."""
    return _mean([harmonic(unit["base"], unit["novel"]) for unit in found.values()])


def _mean(by_unit: Sequence[FloatArray]) -> FloatArray:
    """Over units and seeds: from U arrays [..., S] to [...]."""
    if not by_unit:
        raise KeyError("no unit")
    return np.asarray(np.mean([shares.mean(axis=-1) for shares in by_unit], axis=0))


def _shots(unit: Hashable) -> int:
    assert isinstance(unit, tuple)
    return int(unit[1])
