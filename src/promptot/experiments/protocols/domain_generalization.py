"""Domain generalization: learn in one domain, and be tested on the same classes in others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from promptot.data.catalog.drawings import list_styles, load_bundled_domains
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.experiments.protocols.averages import mean_of, mean_of_all, mean_of_domain
from promptot.experiments.protocols.protocol import Metric, Protocol, part_names, retention_metric
from promptot.experiments.scenarios import Scenario, Source, Split, tested_on

HELD_OUT_STYLE = "fluent-emoji-high-contrast"
"""A training style of the drawings that is kept for testing."""
DOMAIN, TUNED = "domain/", "validation/"
"""What the names of parts start with; `TUNED` domains are those that settings were chosen on."""


class DomainGeneralization(Protocol):
    """Train in one domain; test the same classes in others, of their classes those present.

    In a group of drawings a domain is a style. The training styles but one are the source; that one
    and the test style are the shifted domains; the validation styles are tested too, but apart,
    because settings are chosen on them. Of a table with a column of domains each is one; other
    tasks are one domain each. Nothing is learnt from a target, so all its images are tested, of
    whatever split; of the source, those of the split.
    """

    name = "domain-generalization"
    summary = "Train in one domain, test the same classes in others."
    one_trained = True

    def divide(self, sources: Sequence[Source]) -> Sequence[Source]:
        return [part for source in sources for part in _by_domain(source)]

    def scenarios_of(
        self, source: Source, sources: Sequence[Source], shots: Sequence[int], split: Split
    ) -> list[Scenario]:
        domains = [other for other in sources if other.group is None and other is not source]
        if source.group is not None:
            pool, parts = _styles(source.group, split)
            parts |= source.retention(split)
        else:
            pool, parts = source.task, _domains(source, domains, split)
            if source.task.test if split == "test" else source.task.validation:
                parts = {"source": tested_on(source.task, split), **parts}
        return source.scenarios(pool, "all", parts, shots, domains)

    def metrics(self, scenarios: Sequence[Scenario]) -> list[Metric]:
        parts = part_names(scenarios)
        shifted = [part.removeprefix(DOMAIN) for part in parts if part.startswith(DOMAIN)]
        tuned = [part.removeprefix(TUNED) for part in parts if part.startswith(TUNED)]
        mean = mean_of_all(DOMAIN if shifted else TUNED)
        metrics = [Metric("domains", "Domains", "Mean over the shifted domains.", mean)]
        if "source" in parts:
            note = "Accuracy where it was trained."
            metrics.append(Metric("source", "Source", note, mean_of("source")))
        for name in shifted:
            note = f"Accuracy in the domain '{name}'."
            metrics.append(Metric(DOMAIN + name, name, note, mean_of_domain(DOMAIN + name)))
        for name in tuned:
            apart = ", so it is not in the mean." if shifted else "."
            note = f"'{name}' is a validation style: settings are chosen on it{apart}"
            metrics.append(Metric(TUNED + name, f"{name} †", note, mean_of_domain(TUNED + name)))
        return [*metrics, *retention_metric(scenarios)]

    def data_sets(self, tasks: Sequence[str], domains: Sequence[str], source: str) -> list[str]:
        return [source, *domains]


def _by_domain(source: Source) -> list[Source]:
    """A source for each of its domains, with the classes that this domain has; or itself."""
    if len(source.task.domains) < 2:
        return [source]
    parts = []
    for domain in source.task.domains:
        part = source.task.in_domain(domain)
        present = sorted({example.label for example in part.examples})
        task = replace(part.select(present), name=f"{source.name} {domain}")
        text = f"{source.text}::{domain}"
        parts.append(Source(text, task.name, task, None, None, listed_from=source.listed_from))
    return parts


def _styles(group: str, split: Split) -> tuple[ImageTask, dict[str, ImageTask]]:
    """Of a group of drawings the pool in its source styles, and a part for each other style."""
    tuned = list_styles("validation")
    shifted = [HELD_OUT_STYLE, *list_styles("test")] if split == "test" else []
    source = [style for style in list_styles("train") if style != HELD_OUT_STYLE]
    pool, tasks = load_bundled_domains(group, source, [*shifted, *tuned])
    return pool, {f"{TUNED if s in tuned else DOMAIN}{s}": task for s, task in tasks.items()}


def _domains(source: Source, others: Sequence[Source], split: Split) -> dict[str, ImageTask]:
    """A part for each other domain.

    Raises:
        PromptotError: there is none, or one has a class that the source has not.
    """
    if not others:
        raise PromptotError(
            "One folder has no other domain to test on.", fix="Give two folders or more."
        )
    known = {name.casefold() for name in source.task.class_names}
    parts = {}
    for other in others:
        foreign = [name for name in other.task.class_names if name.casefold() not in known]
        if foreign:
            raise PromptotError(
                f"The domain '{other.name}' has the class '{foreign[0]}', which the source "
                f"'{source.name}' has not.",
                fix="Choose the source with the most classes (--sources), or rename the folder.",
            )
        whole = replace(other.task, test=other.task.examples)
        tested = tested_on(whole if split == "test" else other.task, split)
        present = sorted({example.label for example in tested.test})
        parts[f"{DOMAIN}{other.name}"] = tested.select(present)
    return parts
