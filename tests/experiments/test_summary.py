"""The figures of a benchmark against plain sums over its lines."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from promptot.evaluation.metrics import (
    average_of_harmonic_means,
    harmonic_mean,
    harmonic_mean_of_averages,
)
from promptot.experiments import Benchmark
from promptot.experiments.protocols import PROTOCOLS
from promptot.experiments.scenarios import load_sources

Bench = Callable[..., Benchmark]
SEEDS = (1, 2, 3)


@pytest.fixture
def found(bench: Bench, tmp_path: Path):
    summary = bench(methods="zero-shot,ivlp[optim.lr=0.3]", seeds=SEEDS).summary
    lines = map(json.loads, (tmp_path / "out" / "results.jsonl").read_text().splitlines())
    shares = {
        (line["method"], line["task"], line["seed"], part): value["accuracy"]
        for line in lines
        for part, value in line["parts"].items()
    }
    return summary, shares


def test_base_to_novel_figures_are_plain_means(found) -> None:
    summary, shares = found
    for method in summary.methods:

        def of(part: str, seeds=SEEDS, label=method.label) -> list[float]:
            return [shares[label, t, s, part] for t in ("photos", "other") for s in seeds]

        figures = method.figures
        for part in ("base", "novel"):
            assert figures[part].mean == pytest.approx(statistics.mean(of(part)))
            by_seed = [statistics.mean(of(part, [seed])) for seed in SEEDS]
            assert figures[part].sd == pytest.approx(statistics.stdev(by_seed))
        harmonic = harmonic_mean_of_averages(of("base"), of("novel"))
        assert figures["harmonic_mean"].mean == pytest.approx(harmonic)
        by_seed = [harmonic_mean_of_averages(of("base", [s]), of("novel", [s])) for s in SEEDS]
        assert figures["harmonic_mean"].sd == pytest.approx(statistics.stdev(by_seed))
        average = average_of_harmonic_means(of("base"), of("novel"))
        assert figures["average_harmonic_mean"].mean == pytest.approx(average)
        photos = [shares[method.label, "photos", seed, "base"] for seed in SEEDS]
        assert method.by_task["photos"]["base"].mean == pytest.approx(statistics.mean(photos))
        assert method.by_task["photos"]["base"].sd == pytest.approx(statistics.stdev(photos))


def test_differences_and_ranks_belong_to_the_figures(found) -> None:
    summary, _ = found
    zero, ivlp = summary.methods
    assert summary.control == zero.label
    assert ivlp.figures["base"] != zero.figures["base"]
    for key, gap in ivlp.differences.items():
        assert gap.value == pytest.approx(ivlp.figures[key].mean - zero.figures[key].mean)
        assert gap.low <= gap.value <= gap.high
    ranks = {zero.label: [], ivlp.label: []}
    for task in summary.tasks:
        a, b = (method.by_task[task]["harmonic_mean"].mean for method in (zero, ivlp))
        ranks[zero.label].append(1.5 if a == b else 1 + (a < b))
        ranks[ivlp.label].append(1.5 if a == b else 1 + (b < a))
    assert zero.rank == statistics.mean(ranks[zero.label])
    assert ivlp.rank == statistics.mean(ranks[ivlp.label])


def test_seeds_that_learn_from_the_same_images_are_noted(bench: Bench) -> None:
    few = bench(methods="zero-shot", shots=(1,)).summary
    assert few.notes == []
    every = bench(methods="zero-shot", shots=(100,)).summary
    (note,) = every.notes
    assert "photos (K = 100), other (K = 100)" in note


def shares(*parts: str) -> dict[str, np.ndarray]:
    """Made-up accuracies of two seeds."""
    return {part: np.array([0.1, 0.3]) + i / 10 for i, part in enumerate(parts)}


def values(protocol: str, tasks: list[str], units: dict, **more) -> dict[str, float]:
    chosen = PROTOCOLS[protocol]
    scenarios = chosen.scenarios(load_sources(tasks), [], more.get("shots", [1]), "test")
    return {m.key: round(float(m.value(units)), 6) for m in chosen.metrics(scenarios)}


def test_cross_dataset_averages_targets_in_each_source_first() -> None:
    tasks = ["bundled:food", "bundled:travel", "bundled:animals"]
    units = {
        ("food", 1): shares("source", "target/travel", "target/animals", "retention"),
        ("travel", 1): shares("source", "target/food", "target/animals", "retention"),
        ("animals", 1): shares("source", "target/food", "target/travel", "retention"),
    }
    assert values("cross-dataset", tasks, units) == {
        "targets": 0.35,
        "source": 0.2,
        "retention": 0.5,
        "target/travel": pytest.approx((0.3 + 0.4) / 2),
        "target/animals": 0.4,
        "target/food": 0.3,
    }


def test_domains_leave_the_styles_of_validation_out_of_the_mean() -> None:
    parts = ("domain/fluent-emoji-high-contrast", "domain/twemoji", "validation/fxemoji")
    units = {("food", 1): shares(*parts, "validation/streamline-emojis", "retention")}
    found = values("domain-generalization", ["bundled:food"], units)
    assert found["domains"] == pytest.approx((0.2 + 0.3) / 2)
    assert found["validation/fxemoji"] == 0.4


def test_few_shot_figures_by_number_of_shots() -> None:
    units = {
        ("food", 1): shares("x", "test", "retention"),
        ("food", 2): shares("test", "retention"),
    }
    found = values("few-shot", ["bundled:food"], units, shots=[1, 2])
    assert found == {"test": 0.25, "test@1": 0.3, "test@2": 0.2, "retention": 0.35}


def test_the_harmonic_mean_of_a_method_that_fails_on_one_half_is_zero() -> None:
    zeros = np.zeros(2)
    unit = {"base": np.array([1.0, 0.8]), "novel": zeros, "retention": zeros}
    found = values("base-to-novel", ["bundled:food"], {("food", 1): unit})
    assert found["harmonic_mean"] == harmonic_mean(0.9, 0.0) == 0.0
