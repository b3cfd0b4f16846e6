"""Intervals of differences hold the truth as often as they say: simulated benchmarks.

`benchmarks/coverage.py` makes the whole table; here are the cells that went wrong once.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

FILE = Path(__file__).parents[2] / "benchmarks" / "coverage.py"
REPEATS = 300
LEAST = 0.93 - 2.5 * (0.93 * 0.07 / REPEATS) ** 0.5  # of so few repeats


@pytest.fixture(scope="module")
def coverage():
    spec = importlib.util.spec_from_file_location("coverage_benchmark", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    "options",
    [
        {"seeds": 1, "images": 300},
        {"seeds": 2, "images": 300, "seed_sd": 0.03},
        {"seeds": 3, "images": 1000},
        {"seeds": 3, "images": 1000, "seed_sd": 0.03},
        {"seeds": 3, "images": 4000, "seed_sd": 0.03, "frozen_control": True},
        {"seeds": 5, "images": 300, "seed_sd": 0.02},
        {"seeds": 3, "images": 50, "shared": 0.98, "own": 0.01},
        {"seeds": 3, "images": 100, "seed_sd": 0.03, "tasks": 2, "figure": "harmonic"},
        {"seeds": 3, "images": 200, "seed_sd": 0.03, "tasks": 3, "common_seeds": True},
    ],
    ids=str,
)
def test_the_truth_is_in_the_interval_as_often_as_it_says(coverage, options) -> None:
    share, width = coverage.measure(coverage.Case(**options), REPEATS)
    assert share >= LEAST
    assert width < 60 or options["seeds"] == 2


def test_the_truth_of_the_simulation_is_its_long_run(coverage) -> None:
    import numpy as np

    case = coverage.Case(seeds=4, images=500, seed_sd=0.02, tasks=2, figure="harmonic")
    generator = np.random.default_rng(5)
    gaps, truths = [], set()
    for _ in range(300):
        method, control, truth = coverage.simulate(case, generator)
        found = [
            float(case.statistic({u: {p: a.accuracy for p, a in x.items()} for u, x in m.items()}))
            for m in (method, control)
        ]
        gaps.append(found[0] - found[1])
        truths.add(round(truth, 12))
    (truth,) = truths
    assert abs(np.mean(gaps) - truth) < 4 * np.std(gaps) / 300**0.5
