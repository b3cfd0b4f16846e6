"""A suite of public data sets: which ones a protocol needs, and what was published about it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path

import yaml
from pydantic import BaseModel, ConfigDict

from promptot.data.catalog.public import PublicSet, PublicTask, find_set, load_public, public_sets
from promptot.data.catalog.public.check_data import differences
from promptot.errors import PromptotError, nearest
from promptot.experiments.methods import Method, parse_methods
from promptot.experiments.protocols import PROTOCOLS
from promptot.experiments.published_settings import ReadAt, Settings, SettingsTable
from promptot.experiments.scenarios import Source

_SHIPPED = files("promptot.experiments").joinpath("suites")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class PublishedRow(_Part):
    """Published averages of a method, in percent.

    Attributes:
        name: of the method.
        figures: in the order of the metrics; None where only others are known.
        note: what must be known to compare with it.
    """

    name: str
    figures: list[float | None]
    note: str = ""


class Published(_Part):
    """Published averages of one protocol, in percent.

    Attributes:
        metrics: keys of the metrics, in the order of the figures.
        methods: recipe -> figures.
        others: those of methods that are no recipe here, and reruns.
    """

    metrics: list[str]
    methods: dict[str, list[float]]
    others: list[PublishedRow] = []


class Suite(SettingsTable):
    """What a suite's YAML file says.

    Attributes:
        name, summary: for people.
        tasks: keys of the data sets with training images.
        domains: keys of those that only test.
        source: the task to train on in cross-dataset and domain generalization.
        own_template: recipes whose frozen text reads the sentence of each data set.
        published: protocol -> figures.
        small_print: what must be known to compare with published tables, a sentence each.
        settings, variants, shots: see `SettingsTable`.
    """

    name: str
    summary: str
    tasks: list[str]
    domains: list[str]
    source: str
    own_template: list[str]
    published: dict[str, Published]
    small_print: tuple[str, ...] = ()

    def sets(self, protocol: str | None = None, wanted: Sequence[str] = ()) -> list[PublicSet]:
        """The data sets that a protocol needs, or all; of them those that are wanted, if any are.

        The source of a protocol that has one is always needed.

        Raises:
            PromptotError: a wanted one is unknown or takes no part.
        """
        keys = [*self.tasks, *self.domains]
        if protocol is not None:
            keys = PROTOCOLS[protocol].data_sets(self.tasks, self.domains, self.source)
        chosen = {find_set(name).key for name in wanted}
        foreign = sorted(chosen - set(keys))
        if foreign:
            raise PromptotError(
                f"'{foreign[0]}' takes no part in {protocol or self.name}.",
                fix=nearest(foreign[0], keys),
            )
        if chosen and protocol is not None and PROTOCOLS[protocol].one_trained:
            chosen.add(self.source)
        return [public_sets()[key] for key in keys if not chosen or key in chosen]

    def methods(
        self, protocol: str, text: str, overrides: Sequence[str], read_at: ReadAt = "last"
    ) -> list[Method]:
        """`parse_methods` with what was published for each cell of the protocol.

        Overrides for all methods, and a method's own ones in brackets, go before it.
        """

        def rule(recipe: str, task: str, shots: int | None) -> Settings:
            return self.resolve(recipe, protocol, find_set(task).key, shots, read_at)

        return parse_methods(text, overrides, self.own_template, rule)

    def trained(self, protocol: str) -> list[str]:
        """Names of the data sets that a protocol trains on; none stands for all of them."""
        return [public_sets()[self.source].name] if PROTOCOLS[protocol].one_trained else []


@cache
def load_suite(name: str) -> Suite:
    """A suite by name.

    Raises:
        PromptotError: there is none of that name.

    Example:
        >>> len(load_suite("coop").sets()), len(load_suite("coop").sets("cross-dataset"))
        (15, 11)
    """
    if name not in list_suites():
        raise PromptotError(f"No suite '{name}'.", fix=nearest(name, list_suites()))
    text = _SHIPPED.joinpath(f"{name}.yaml").read_text(encoding="utf-8")
    return Suite.model_validate(yaml.safe_load(text))


def list_suites() -> list[str]:
    """The names of the suites that ship with promptot."""
    return sorted(
        entry.name.removesuffix(".yaml")
        for entry in _SHIPPED.iterdir()
        if entry.name.endswith(".yaml")
    )


def named_sets(name: str, wanted: Sequence[str] = ()) -> list[PublicSet]:
    """The data sets of a suite, or of them those that are wanted; or one data set by its name.

    Raises:
        PromptotError: the name is neither, or a wanted one is not of the suite.
    """
    if name in list_suites():
        return load_suite(name).sets(wanted=wanted)
    try:
        return [find_set(name)]
    except PromptotError:
        known = [*list_suites(), *public_sets()]
        raise PromptotError(
            f"'{name}' is neither a suite nor a public data set.", fix=nearest(name, known)
        ) from None


def suite_sources(
    suite: Suite, protocol: str, root: str | Path, wanted: Sequence[str], unverified: bool
) -> tuple[list[Source], list[str], list[str]]:
    """The tasks of a protocol, those to train on, and what to know of the data.

    Nothing runs unless all of it can: every data set is read before the first one is used.

    Args:
        suite: which data sets.
        protocol: name.
        root: the folder that holds all data sets.
        wanted: names of some of them, where not all.
        unverified: accept other numbers of classes and images than the published ones.

    Raises:
        PromptotError: a data set is missing, damaged, or (unless `unverified`) not complete.
    """
    found: list[PublicTask] = []
    problems = []
    notes = []
    for public_set in suite.sets(protocol, wanted):
        try:
            task = load_public(public_set.key, root)
        except PromptotError as error:
            problems.append(error.problem)
            continue
        found.append(task)
        wrong = differences(task)
        if wrong and not unverified:
            problems.append(f"{public_set.name}: {' '.join(wrong)}")
        elif wrong:
            notes.append(f"{public_set.name} is not the published data set: {' '.join(wrong)}")
        if not task.published_split:
            notes.append(
                f"{public_set.name} was divided here, without {public_set.split}: its figures do "
                "not compare "
                "with published ones."
            )
    if problems:
        raise PromptotError(
            f"The suite '{suite.name}' is not complete in '{root}': {' '.join(problems)}",
            fix=f"`promptot data check {suite.name} --root {root}` says what to fetch from where; "
            "--tasks runs fewer data sets, --unverified accepts other counts.",
        )
    sources = [
        Source(task.task.name, task.task.name, task.task, None, None, task.place, task.digest)
        for task in found
    ]
    return sources, suite.trained(protocol), notes
