"""Cross-dataset: learn one task, and be tested on all others."""

from __future__ import annotations

from collections.abc import Sequence

from promptot.errors import PromptotError
from promptot.experiments.protocols.averages import mean_of, mean_of_all, mean_of_domain
from promptot.experiments.protocols.protocol import Metric, Protocol, part_names, retention_metric
from promptot.experiments.scenarios import Scenario, Source, Split, tested_on

TARGET = "target/"
"""What the names of parts start with that are other tasks."""


class CrossDataset(Protocol):
    """Train on all classes of one task; test every other task as it is."""

    name = "cross-dataset"
    summary = "Train on all classes of one task, test on every other task."
    one_trained = True

    def scenarios_of(
        self, source: Source, sources: Sequence[Source], shots: Sequence[int], split: Split
    ) -> list[Scenario]:
        if len(sources) < 2:
            raise PromptotError("One task has no other to test on.", fix="Give two tasks or more.")
        others = {f"{TARGET}{other.name}": other for other in sources if other is not source}
        parts = {
            name: tested_on(part.task, split) for name, part in {"source": source, **others}.items()
        }
        return source.scenarios(source.task, "all", parts | source.retention(split), shots, sources)

    def metrics(self, scenarios: Sequence[Scenario]) -> list[Metric]:
        names = [p.removeprefix(TARGET) for p in part_names(scenarios) if p.startswith(TARGET)]
        source = "Accuracy on the task that was trained on."
        return [
            Metric("targets", "Targets", "Mean over all other tasks.", mean_of_all(TARGET)),
            Metric("source", "Source", source, mean_of("source")),
            *retention_metric(scenarios),
            *(
                Metric(
                    TARGET + name,
                    f"→ {name}",
                    f"Accuracy on '{name}', over the sources but itself.",
                    mean_of_domain(TARGET + name),
                )
                for name in names
            ),
        ]
