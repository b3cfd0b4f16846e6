"""Base-to-novel: learn one half of a task's classes, and be tested on both."""

from __future__ import annotations

from collections.abc import Sequence

from promptot.errors import PromptotError
from promptot.experiments.protocols.averages import (
    average_of_harmonics,
    harmonic_of_averages,
    mean_of,
)
from promptot.experiments.protocols.protocol import Metric, Protocol, retention_metric
from promptot.experiments.scenarios import Scenario, Source, Split, tested_on


class BaseToNovel(Protocol):
    """Train on the first half of the classes; test both halves, each among its own names."""

    name = "base-to-novel"
    summary = "Train on the first half of a task's classes, test both halves."

    def scenarios_of(
        self, source: Source, sources: Sequence[Source], shots: Sequence[int], split: Split
    ) -> list[Scenario]:
        if len(source.task.class_names) < 2:
            raise PromptotError(
                f"'{source.name}' has one class, which can't be divided into base and novel.",
                fix="Take a task with two classes or more.",
            )
        halves = {"base": source.task.base(), "novel": source.task.novel()}
        parts = {name: tested_on(half, split) for name, half in halves.items()}
        return source.scenarios(source.task, "base", parts | source.retention(split), shots)

    def metrics(self, scenarios: Sequence[Scenario]) -> list[Metric]:
        averages = "Harmonic mean of the two averages over tasks and seeds"
        whole = f"{averages}, as published tables have it."
        each = "Harmonic mean of each task and seed, then the average; never above HM."
        base = "Accuracy on the classes that were trained on."
        novel = "Accuracy on the other classes of the same task."
        return [
            Metric("harmonic_mean", "HM", whole, harmonic_of_averages),
            Metric("base", "Base", base, mean_of("base")),
            Metric("novel", "Novel", novel, mean_of("novel")),
            Metric("average_harmonic_mean", "Mean of HMs", each, average_of_harmonics),
            *retention_metric(scenarios),
        ]
