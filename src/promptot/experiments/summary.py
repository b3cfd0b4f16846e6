"""From finished cells to figures: means and spreads, ranks, differences to the control."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from promptot.errors import PromptotError
from promptot.evaluation.statistics import (
    Accuracies,
    Answers,
    Difference,
    FloatArray,
    accuracies,
    average_ranks,
    mean_and_sd,
    paired_differences,
)
from promptot.experiments.cell_record import NOT_READ, RIGHT, CellRecord
from promptot.experiments.cells import Cell
from promptot.experiments.methods import Method
from promptot.experiments.planning import Plan, PublishedFigures
from promptot.experiments.protocols import Metric
from promptot.experiments.scenarios import Scenario, Unit
from promptot.experiments.settings_listing import SettingsRow, describe_cell, sum_up
from promptot.recipes import describe


@dataclass(frozen=True)
class Figure:
    """Mean and standard deviation over seeds; the latter is NaN for one seed."""

    mean: float
    sd: float


@dataclass(frozen=True)
class MethodSummary:
    """One method's figures, by the keys of the metrics; what can't be measured is missing.

    Attributes:
        label: what the method is called.
        written: its recipe and overrides.
        figures: over all tasks.
        by_task: task -> figures.
        rank: 1 the best, averaged over tasks; None where a task is missing.
        differences: to the control.
        diagnostics: means over cells, see `DIAGNOSTICS`.
        recipe: its values, nested, as they are in the first scenario.
        settings: those of them that have an effect, flat, without the shots; a text of all values
            where scenarios differ.
    """

    label: str
    written: str
    figures: Mapping[str, Figure]
    by_task: Mapping[str, Mapping[str, Figure]]
    rank: float | None
    differences: Mapping[str, Difference]
    diagnostics: Mapping[str, float]
    recipe: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class Summary:
    """What a benchmark found.

    Attributes:
        protocol, split: what was done.
        metrics: in order, the first is the main one.
        methods: in the order they were asked for.
        control: the label of the method that the others are compared with.
        tasks, shots, seeds: that the figures are over.
        backbone: name.
        notes: what is missing or must be known to read the figures, a sentence each.
        published: method -> metric -> figure in 0..1, where one was published of the same tasks.
        elsewhere: figures of other methods in 0..1 by metric, with what must be known of them.
        small_print: what must be known to compare with published tables, a sentence each.
        settings: of the cells of a suite, a row for those that are alike.
        tested: what models were tested on, where that is not the task that they were trained on.
    """

    protocol: str
    split: str
    metrics: Sequence[Metric]
    methods: Sequence[MethodSummary]
    control: str
    tasks: Sequence[str]
    shots: Sequence[int]
    seeds: Sequence[int]
    backbone: str
    notes: Sequence[str]
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    elsewhere: Sequence[PublishedFigures] = ()
    small_print: Sequence[str] = ()
    settings: Sequence[SettingsRow] = ()
    tested: Sequence[str] = ()


DIAGNOSTICS = (
    "off_diagonal_mass",
    "plan_entropy",
    "vocabulary_off_diagonal_mass",
    "vocabulary_plan_entropy",
    "image_drift",
    "text_drift",
    "seconds",
)
"""What is told of training: figures that records have, and the seconds."""


def summarise(
    plan: Plan, cells: Sequence[Cell], records: Mapping[str, CellRecord], backbone: str
) -> Summary:
    """Sum up the cells that are finished.

    Only the tasks that every method has finished with every seed count, so that all figures are
    over the same images; a method with a failed cell on these tasks has no figures. What was
    published is left out where a task is.

    Args:
        plan: the whole benchmark.
        cells: of the plan.
        records: by the keys of the cells.
        backbone: its name.

    Raises:
        PromptotError: no task is finished.
    """
    labels = list(dict.fromkeys(cell.method.label for cell in cells))
    unfinished = {cell.task for cell in cells if cell.key not in records}
    scenarios = [scenario for scenario in plan.scenarios if scenario.task not in unfinished]
    if not scenarios:
        raise PromptotError(
            "No task is finished by every method with every seed.",
            fix="Run the same command without --report-only, or wait for those that are at work.",
        )
    used = [cell for cell in cells if cell.task not in unfinished]
    failed = {
        cell.method.label: records[cell.key].problem
        for cell in used
        if not records[cell.key].is_result
    }
    own = {label: [cell for cell in used if cell.method.label == label] for label in labels}
    answers = {
        label: _answers(own[label], scenarios, records) for label in labels if label not in failed
    }
    metrics = plan.protocol.metrics(scenarios)
    tasks = list(dict.fromkeys(scenario.task for scenario in scenarios))
    compared: dict[str, dict[str, Difference]] = {}
    if plan.control in answers:
        compared = paired_differences(answers, plan.control, {m.key: m.value for m in metrics})
    found = {label: accuracies(units) for label, units in answers.items()}
    ranks = _ranks(found, metrics[0], tasks)
    seeds = list(dict.fromkeys(cell.seed for cell in used))
    return Summary(
        protocol=plan.protocol.name,
        split=used[0].split,
        metrics=metrics,
        methods=[
            MethodSummary(
                label,
                own[label][0].method.written,
                figures=_figures(found.get(label, {}), metrics),
                by_task=_by_task(found[label], tasks, metrics) if label in found else {},
                rank=ranks.get(label),
                differences=compared.get(label, {}),
                diagnostics=_diagnostics([records[cell.key] for cell in own[label]]),
                recipe=own[label][0].method.values(),
                settings=_settings([cell.method for cell in own[label]]),
            )
            for label in labels
        ],
        control=plan.control,
        tasks=tasks,
        shots=sorted({scenario.shots for scenario in scenarios}),
        seeds=seeds,
        backbone=backbone,
        notes=[*plan.notes, *_notes(scenarios, unfinished, failed, seeds)],
        published={} if unfinished else {k: v for k, v in plan.published.items() if k in answers},
        elsewhere=() if unfinished else plan.elsewhere,
        small_print=plan.small_print,
        settings=_settings_rows(used, {scenario.unit: scenario for scenario in scenarios}),
        tested=_tested(scenarios) if plan.protocol.one_trained else (),
    )


def _tested(scenarios: Sequence[Scenario]) -> list[str]:
    """The names of the targets or domains."""
    parts = dict.fromkeys(part for scenario in scenarios for part in scenario.parts)
    return list(dict.fromkeys(part.partition("/")[2] for part in parts if "/" in part))


def _settings(methods: Sequence[Method]) -> dict[str, Any]:
    """The values of one method that have an effect, flat; of several, in the order of the cells."""
    values: dict[str, list[Any]] = {}
    for recipe in {str(method.recipe): method.recipe for method in methods}.values():
        for key, value in describe(recipe).items():
            own = values.setdefault(key, [])
            if value not in own:
                own.append(value)
    return {
        key: own[0] if len(own) == 1 else ", ".join(map(str, own))
        for key, own in values.items()
        if ("." in key or (key == "evaluate_epoch" and own != [None])) and key != "data.shots"
    }


def _settings_rows(cells: Sequence[Cell], scenarios: Mapping[Unit, Scenario]) -> list[SettingsRow]:
    """Which settings ran where, of a suite."""
    return sum_up(
        describe_cell(c.method, c.task, scenarios[c.unit].pool.template, c.shots, c.seed)
        for c in cells
        if c.method.settings is not None and c.seed == cells[0].seed
    )


def _answers(
    cells: Sequence[Cell], scenarios: Sequence[Scenario], records: Mapping[str, CellRecord]
) -> dict[Hashable, dict[str, Answers]]:
    """Unit -> part -> answers [seeds, images] of one method."""
    units: dict[Hashable, dict[str, Answers]] = {}
    for scenario in scenarios:
        same = [cell for cell in cells if cell.unit == scenario.unit]
        parts = units[scenario.unit] = {}
        for name, part in scenario.parts.items():
            rows = [_answers_of(cell, name, len(part.test), records[cell.key]) for cell in same]
            right = [row for row in rows if row is not None]
            if len(right) == len(rows):
                parts[name] = Answers(np.array(right), [example.path for example in part.test])
    return units


def _answers_of(cell: Cell, part: str, images: int, record: CellRecord) -> list[float] | None:
    """1 right, 0 wrong, NaN not read, of each image; None where the part was not answered.

    Raises:
        PromptotError: there are other images.
    """
    answered = (record.parts or {}).get(part)
    if answered is None:
        return None
    if len(answered.answers) != images:
        raise PromptotError(
            f"The result of {cell.task}, seed {cell.seed}, {cell.method.label}, has "
            f"{len(answered.answers)} answers for {images} images.",
            fix=f"Remove the line of the cell '{cell.key[:12]}…': it will run again.",
        )
    return [_share(answer) for answer in answered.answers]


def _share(answer: str) -> float:
    return math.nan if answer == NOT_READ else float(answer == RIGHT)


def _figures(found: Accuracies, metrics: Sequence[Metric]) -> dict[str, Figure]:
    """Each metric over units and seeds, and the deviation of its value over single seeds."""
    figures = {}
    for metric in metrics:
        by_seed = {  # [..., S] with one seed each: [S, 1]
            unit: {part: shares[:, None] for part, shares in parts.items()}
            for unit, parts in found.items()
        }
        try:
            values: FloatArray = metric.value(by_seed)
            figures[metric.key] = Figure(float(metric.value(found)), mean_and_sd(list(values))[1])
        except KeyError:  # the method, or this task, has no such part
            continue
    return figures


def _by_task(
    found: Accuracies, tasks: Sequence[str], metrics: Sequence[Metric]
) -> dict[str, dict[str, Figure]]:
    return {task: _figures(_of_task(found, task), metrics) for task in tasks}


def _of_task(found: Accuracies, task: str) -> Accuracies:
    return {u: parts for u, parts in found.items() if isinstance(u, tuple) and u[0] == task}


def _ranks(
    found: Mapping[str, Accuracies], metric: Metric, tasks: Sequence[str]
) -> dict[str, float]:
    """Label -> rank by a metric, averaged over tasks, of the methods that have it."""

    def value(accuracies: Accuracies) -> float:
        try:
            return float(metric.value(accuracies))
        except KeyError:
            return math.nan

    labels = list(found)
    scores = [[value(_of_task(found[label], task)) for label in labels] for task in tasks]
    ranks = average_ranks(scores) if labels else np.empty(0)
    return {label: float(r) for label, r in zip(labels, ranks, strict=True) if not math.isnan(r)}


def _diagnostics(records: Sequence[CellRecord]) -> dict[str, float]:
    means = {}
    for key in DIAGNOSTICS:
        values = [
            record.seconds if key == "seconds" else record.training.get(key)
            for record in records
            if record.is_result
        ]
        measured = [value for value in values if value is not None]
        if measured:
            means[key] = math.fsum(measured) / len(measured)
    return means


def _notes(
    scenarios: Sequence[Scenario],
    unfinished: set[str],
    failed: Mapping[str, str],
    seeds: Sequence[int],
) -> list[str]:
    notes = []
    if unfinished:
        notes.append(f"Not finished, and left out: {', '.join(sorted(unfinished))}.")
    notes += [
        f"{label} has no figures, because a cell failed: {why}" for label, why in failed.items()
    ]
    few = [scenario for scenario in scenarios if len(seeds) > 1 and _takes_all(scenario)]
    if few:
        units = ", ".join(
            dict.fromkeys(f"{scenario.task} (K = {scenario.shots})" for scenario in few)
        )
        notes.append(
            f"No class has more images than were asked for in {units}: there every seed learns "
            "from the same images, and seeds differ in start, order and augmentation alone."
        )
    return notes


def _takes_all(scenario: Scenario) -> bool:
    counts: dict[int, int] = {}
    for example in scenario.pool.train:
        counts[example.label] = counts.get(example.label, 0) + 1
    return max(counts.values(), default=0) <= scenario.shots
