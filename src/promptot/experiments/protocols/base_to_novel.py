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
from promptot.experiments.trials import (
    Source,
    Split,
    Trial,
    pick_sources,
    retention_part,
    tested_on,
)


class BaseToNovel(Protocol):
    """Train on the first half of the classes; test both halves, each among its own names."""

    name = "base-to-novel"
    summary = "Train on the first half of a task's classes, test both halves."

    def trials(
        self, sources: Sequence[Source], trained: Sequence[str], shots: Sequence[int], split: Split
    ) -> list[Trial]:
        trials = []
        for source in pick_sources(sources, trained):
            if len(source.task.class_names) < 2:
                raise PromptotError(
                    f"'{source.name}' has one class, which can't be divided into base and novel.",
                    fix="Take a task with two classes or more.",
                )
            parts = {
                "base": tested_on(source.task.base(), split),
                "novel": tested_on(source.task.novel(), split),
                **retention_part(source, split),
            }
            trials += source.trials(source.task, "base", parts, shots)
        return trials

    def metrics(self, trials: Sequence[Trial]) -> list[Metric]:
        return [
            Metric(
                "harmonic_mean",
                "HM",
                "Harmonic mean of the two averages over tasks and seeds, as published tables have "
                "it.",
                harmonic_of_averages,
            ),
            Metric(
                "base", "Base", "Accuracy on the classes that were trained on.", mean_of("base")
            ),
            Metric(
                "novel",
                "Novel",
                "Accuracy on the other classes of the same task.",
                mean_of("novel"),
            ),
            Metric(
                "average_harmonic_mean",
                "Mean of HMs",
                "Harmonic mean of each task and seed, then the average; never above HM.",
                average_of_harmonics,
            ),
            *retention_metric(trials),
        ]
