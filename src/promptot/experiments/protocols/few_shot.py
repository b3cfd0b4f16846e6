"""Few-shot: learn all classes of a task from K images each, for several K."""

from __future__ import annotations

from collections.abc import Sequence

from promptot.experiments.protocols.averages import mean_at, mean_of
from promptot.experiments.protocols.protocol import Metric, Protocol, retention_metric
from promptot.experiments.scenarios import Scenario, Source, Split, tested_on


class FewShot(Protocol):
    """Train on all classes with K images each, for every K; test the same classes."""

    name = "few-shot"
    summary = "Train on K images of each class, for several K."
    several_shots = True

    def scenarios_of(
        self, source: Source, sources: Sequence[Source], shots: Sequence[int], split: Split
    ) -> list[Scenario]:
        parts = {"test": tested_on(source.task, split), **source.retention(split)}
        return source.scenarios(source.task, "all", parts, shots)

    def metrics(self, scenarios: Sequence[Scenario]) -> list[Metric]:
        shots = sorted({scenario.shots for scenario in scenarios})
        if len(shots) == 1:
            accuracy = Metric("test", "Accuracy", f"{_with_shots(shots[0])}.", mean_of("test"))
            return [accuracy, *retention_metric(scenarios)]
        return [
            Metric("test", "Mean", "Accuracy, mean over all numbers of shots.", mean_of("test")),
            *(
                Metric(
                    f"test@{k}", f"K = {k}", f"Accuracy with {_with_shots(k)}.", mean_at(k, "test")
                )
                for k in shots
            ),
            *retention_metric(scenarios),
        ]


def _with_shots(count: int) -> str:
    return "1 shot" if count == 1 else f"{count} shots"
