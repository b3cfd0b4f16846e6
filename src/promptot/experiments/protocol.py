"""The four protocols: what each one tests, and the figures that sum it up."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from promptot.evaluation.statistics import Accuracies, FloatArray, Statistic, harmonic
from promptot.experiments.trials import (
    DOMAIN,
    RETENTION,
    TARGET,
    TUNED,
    Source,
    Split,
    Trial,
    base_to_novel_trials,
    cross_dataset_trials,
    domain_generalization_trials,
    few_shot_trials,
)


@dataclass(frozen=True)
class Metric:
    """One column of a benchmark's table.

    Attributes:
        key: in the CSV.
        label: the header.
        note: a sentence that says what it is.
        value: from accuracies [..., S] to the figure [...].
    """

    key: str
    label: str
    note: str
    value: Statistic


@dataclass(frozen=True)
class Protocol:
    """A way to compare methods.

    Attributes:
        name, summary: for people.
        trials: from tasks, those to train on (none: all), shots and the split to its trials.
        metrics: the figures of these trials; the first one is what methods are ranked by.
        several_shots: whether it is made to compare numbers of shots.
        one_trained: whether a model is trained on one task and tested on others.
    """

    name: str
    summary: str
    trials: Callable[[Sequence[Source], Sequence[str], Sequence[int], Split], list[Trial]]
    metrics: Callable[[Sequence[Trial]], list[Metric]]
    several_shots: bool = False
    one_trained: bool = False


def mean_of(part: str) -> Statistic:
    """The mean accuracy on a part over units and seeds."""
    return lambda found: _mean([unit[part] for unit in found.values()])


def mean_of_all(*prefixes: str) -> Statistic:
    """The mean over the parts whose names start so: in each unit first, then over units."""

    def value(found: Accuracies) -> FloatArray:
        return _mean([_average(unit, prefixes) for unit in found.values()])

    return value


def mean_of_domain(part: str) -> Statistic:
    """The mean accuracy on a part over the units that have it."""

    def value(found: Accuracies) -> FloatArray:
        shares = [unit[part] for unit in found.values() if part in unit]
        if not shares:
            raise KeyError(part)
        return _mean(shares)

    return value


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


def _average(unit: Mapping[str, FloatArray], prefixes: Sequence[str]) -> FloatArray:
    parts = [value for part, value in unit.items() if part.startswith(tuple(prefixes))]
    if not parts:
        raise KeyError(prefixes)
    return np.asarray(np.mean(parts, axis=0))


def _mean(by_unit: Sequence[FloatArray]) -> FloatArray:
    """Over units and seeds: from U arrays [..., S] to [...]."""
    if not by_unit:
        raise KeyError("no unit")
    return np.asarray(np.mean([shares.mean(axis=-1) for shares in by_unit], axis=0))


def _shots(unit: Hashable) -> int:
    assert isinstance(unit, tuple)
    return int(unit[1])


def _parts(trials: Sequence[Trial]) -> list[str]:
    return list(dict.fromkeys(part for trial in trials for part in trial.parts))


def _retention(trials: Sequence[Trial]) -> list[Metric]:
    if RETENTION not in _parts(trials):
        return []
    note = "Accuracy on classes that have nothing to do with the training, among all their names."
    return [Metric(RETENTION, "Retention", note, mean_of(RETENTION))]


def _base_to_novel(trials: Sequence[Trial]) -> list[Metric]:
    return [
        Metric(
            "harmonic_mean",
            "HM",
            "Harmonic mean of the two averages over tasks and seeds, as published tables have it.",
            harmonic_of_averages,
        ),
        Metric("base", "Base", "Accuracy on the classes that were trained on.", mean_of("base")),
        Metric(
            "novel", "Novel", "Accuracy on the other classes of the same task.", mean_of("novel")
        ),
        Metric(
            "average_harmonic_mean",
            "Mean of HMs",
            "Harmonic mean of each task and seed, then the average; never above HM.",
            average_of_harmonics,
        ),
        *_retention(trials),
    ]


def _cross_dataset(trials: Sequence[Trial]) -> list[Metric]:
    targets = [part for part in _parts(trials) if part.startswith(TARGET)]
    return [
        Metric("targets", "Targets", "Mean over all other tasks.", mean_of_all(TARGET)),
        Metric("source", "Source", "Accuracy on the task that was trained on.", mean_of("source")),
        *_retention(trials),
        *(
            Metric(
                part,
                f"→ {part.removeprefix(TARGET)}",
                f"Accuracy on '{part.removeprefix(TARGET)}', over the sources but itself.",
                mean_of_domain(part),
            )
            for part in targets
        ),
    ]


def _domain_generalization(trials: Sequence[Trial]) -> list[Metric]:
    parts = _parts(trials)
    shifted = [part for part in parts if part.startswith(DOMAIN)]
    tuned = [part for part in parts if part.startswith(TUNED)]
    mean = DOMAIN if shifted else TUNED
    return [
        Metric("domains", "Domains", "Mean over the shifted domains.", mean_of_all(mean)),
        *(
            [Metric("source", "Source", "Accuracy where it was trained.", mean_of("source"))]
            if "source" in parts
            else []
        ),
        *(
            Metric(
                part,
                part.removeprefix(DOMAIN),
                f"Accuracy in the domain '{part.removeprefix(DOMAIN)}'.",
                mean_of_domain(part),
            )
            for part in shifted
        ),
        *(
            Metric(
                part,
                f"{part.removeprefix(TUNED)} †",
                f"'{part.removeprefix(TUNED)}' is a validation style: settings are chosen on it"
                + (", so it is not in the mean." if shifted else "."),
                mean_of_domain(part),
            )
            for part in tuned
        ),
        *_retention(trials),
    ]


def _few_shot(trials: Sequence[Trial]) -> list[Metric]:
    shots = sorted({trial.shots for trial in trials})
    if len(shots) == 1:
        accuracy = Metric("test", "Accuracy", f"{_with_shots(shots[0])}.", mean_of("test"))
        return [accuracy, *_retention(trials)]
    return [
        Metric("test", "Mean", "Accuracy, mean over all numbers of shots.", mean_of("test")),
        *(Metric(f"test@{k}", f"K = {k}", f"Accuracy with {_with_shots(k)}.", mean_at(k, "test"))
          for k in shots),
        *_retention(trials),
    ]  # fmt: skip


def _with_shots(count: int) -> str:
    return "1 shot" if count == 1 else f"{count} shots"


PROTOCOLS: Mapping[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol(
            "base-to-novel",
            "Train on the first half of a task's classes, test both halves.",
            base_to_novel_trials,
            _base_to_novel,
        ),
        Protocol(
            "cross-dataset",
            "Train on all classes of one task, test on every other task.",
            cross_dataset_trials,
            _cross_dataset,
            one_trained=True,
        ),
        Protocol(
            "domain-generalization",
            "Train in one domain, test the same classes in others.",
            domain_generalization_trials,
            _domain_generalization,
            one_trained=True,
        ),
        Protocol(
            "few-shot",
            "Train on K images of each class, for several K.",
            few_shot_trials,
            _few_shot,
            several_shots=True,
        ),
    )
}
