"""What a protocol is: which tasks are trained on, what is tested, and how that is summed up."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from promptot.evaluation.statistics import Statistic
from promptot.experiments.protocols.averages import mean_of
from promptot.experiments.scenarios import RETENTION, Scenario, Source, Split, pick_sources


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


class Protocol(ABC):
    """A way to compare methods.

    Attributes:
        name, summary: for people.
        several_shots: whether it is made to compare numbers of shots.
        one_trained: whether a model is trained on one task and tested on others.
    """

    name: ClassVar[str]
    summary: ClassVar[str]
    several_shots: ClassVar[bool] = False
    one_trained: ClassVar[bool] = False

    def scenarios(
        self, sources: Sequence[Source], trained: Sequence[str], shots: Sequence[int], split: Split
    ) -> list[Scenario]:
        """What is trained on and what is tested.

        Args:
            sources: all tasks.
            trained: those of them to train on, as they were asked for; none stands for all.
            shots: images per class.
            split: whose images are tested.

        Raises:
            PromptotError: the tasks don't fit the protocol.
        """
        sources = self.divide(sources)
        return [
            scenario
            for source in pick_sources(sources, trained)
            for scenario in self.scenarios_of(source, sources, shots, split)
        ]

    def divide(self, sources: Sequence[Source]) -> Sequence[Source]:
        """The tasks as they are trained on and tested."""
        return sources

    @abstractmethod
    def scenarios_of(
        self, source: Source, sources: Sequence[Source], shots: Sequence[int], split: Split
    ) -> list[Scenario]:
        """Those that train on one task."""

    @abstractmethod
    def metrics(self, scenarios: Sequence[Scenario]) -> list[Metric]:
        """The figures of these scenarios; methods are ranked by the first one."""

    def data_sets(self, tasks: Sequence[str], domains: Sequence[str], source: str) -> list[str]:
        """Those data sets of a suite that it needs.

        Args:
            tasks: keys of the data sets with training images.
            domains: keys of those that only test.
            source: key of the one to train on where a model is trained on one.
        """
        return list(tasks)


def part_names(scenarios: Sequence[Scenario]) -> list[str]:
    """The names of all parts, each once."""
    return list(dict.fromkeys(part for scenario in scenarios for part in scenario.parts))


def retention_metric(scenarios: Sequence[Scenario]) -> list[Metric]:
    """The accuracy on everything else, where it is tested."""
    if RETENTION not in part_names(scenarios):
        return []
    note = "Accuracy on classes that have nothing to do with the training, among all their names."
    return [Metric(RETENTION, "Retention", note, mean_of(RETENTION))]
