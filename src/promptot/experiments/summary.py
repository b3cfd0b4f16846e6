"""From finished cells to figures: means and spreads, ranks, differences to the control."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
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
from promptot.experiments.cells import Cell
from promptot.experiments.methods import Method
from promptot.experiments.planning import Elsewhere
from promptot.experiments.protocol import Metric, Protocol
from promptot.experiments.run_cells import NOT_READ, RIGHT, is_result
from promptot.experiments.settings_listing import SettingsRow, describe_cell, sum_up
from promptot.experiments.trials import Trial
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
        recipe: its values, nested, as they are in the first trial.
        settings: those of them that have an effect, flat, without the shots; a text of all values
            where trials differ.
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
class PublishedFigures:
    """What was published of a method that takes no part: figures in 0..1 by metric, and a note."""

    name: str
    figures: Mapping[str, float]
    note: str = ""


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
    protocol: Protocol,
    cells: Sequence[Cell],
    records: Mapping[str, Mapping[str, Any]],
    control: str,
    backbone: str,
    *,
    published: Mapping[str, Mapping[str, float]] = MappingProxyType({}),
    elsewhere: Elsewhere | None = None,
    notes: Sequence[str] = (),
) -> Summary:
    """Sum up the cells that are finished.

    Only the tasks that every method has finished with every seed count, so that all figures are
    over the same images; a method with a failed cell on these tasks has no figures.

    Args:
        cells: of the whole benchmark.
        records: cell key -> its line.
        control: label of the method to compare with.
        backbone: its name.
        published: figures of all these tasks by method and metric; left out where a task is.
        elsewhere: what else was published of all these tasks; its figures are left out where a
            task is.
        notes: what must be known of the data.

    Raises:
        PromptotError: no task is finished.
    """
    elsewhere = elsewhere or Elsewhere()
    labels = list(dict.fromkeys(cell.method.label for cell in cells))
    trials = list({id(cell.trial): cell.trial for cell in cells}.values())
    unfinished = {cell.trial.task for cell in cells if cell.key not in records}
    trials = [trial for trial in trials if trial.task not in unfinished]
    if not trials:
        raise PromptotError(
            "No task is finished by every method with every seed.",
            fix="Run the same command without --report-only, or wait for those that are at work.",
        )
    used = [cell for cell in cells if cell.trial.task not in unfinished]
    failed = {
        cell.method.label: str(records[cell.key].get("problem", "its line holds no result"))
        for cell in used
        if not is_result(records[cell.key])
    }
    answers = {
        label: _answers([cell for cell in used if cell.method.label == label], records)
        for label in labels
        if label not in failed
    }
    metrics = protocol.metrics(trials)
    tasks = list(dict.fromkeys(trial.task for trial in trials))
    compared: dict[str, dict[str, Difference]] = {}
    if control in answers:
        compared = paired_differences(answers, control, {m.key: m.value for m in metrics})
    found = {label: accuracies(units) for label, units in answers.items()}
    ranks = _ranks(found, metrics[0], tasks)
    first = {label: next(c.method for c in used if c.method.label == label) for label in labels}
    methods = [
        MethodSummary(
            label,
            first[label].written,
            figures=_figures(found[label], metrics) if label in found else {},
            by_task={
                task: _figures(_of_task(found[label], task), metrics)
                for task in tasks
                if label in found
            },
            rank=ranks.get(label),
            differences=compared.get(label, {}),
            diagnostics=_diagnostics(
                [records[cell.key] for cell in used if cell.method.label == label]
            ),
            recipe=first[label].values(),
            settings=_settings([c.method for c in used if c.method.label == label]),
        )
        for label in labels
    ]
    seeds = list(dict.fromkeys(cell.seed for cell in used))
    return Summary(
        protocol=protocol.name,
        split=used[0].split,
        metrics=metrics,
        methods=methods,
        control=control,
        tasks=tasks,
        shots=sorted({trial.shots for trial in trials}),
        seeds=seeds,
        backbone=backbone,
        notes=[*notes, *_notes(trials, unfinished, failed, seeds)],
        published={
            label: figures
            for label, figures in published.items()
            if label in answers and not unfinished
        },
        elsewhere=[] if unfinished else _published_figures(elsewhere),
        small_print=elsewhere.small_print,
        settings=_settings_rows(used),
        tested=_tested(trials) if protocol.one_trained else (),
    )


def _tested(trials: Sequence[Trial]) -> list[str]:
    """The names of the targets or domains."""
    parts = dict.fromkeys(part for trial in trials for part in trial.parts)
    return list(dict.fromkeys(part.partition("/")[2] for part in parts if "/" in part))


def _published_figures(elsewhere: Elsewhere) -> list[PublishedFigures]:
    return [
        PublishedFigures(
            row.name,
            {
                metric: figure / 100
                for metric, figure in zip(elsewhere.metrics, row.figures, strict=True)
                if figure is not None
            },
            row.note,
        )
        for row in elsewhere.rows
    ]


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


def _settings_rows(cells: Sequence[Cell]) -> list[SettingsRow]:
    """Which settings ran where, of a suite."""
    return sum_up(
        describe_cell(c.method, c.trial.task, c.trial.pool.template, c.trial.shots, c.seed)
        for c in cells
        if c.method.rule is not None and c.seed == cells[0].seed
    )


def _answers(
    cells: Sequence[Cell], records: Mapping[str, Mapping[str, Any]]
) -> dict[Hashable, dict[str, Answers]]:
    """Unit -> part -> answers [seeds, images] of one method."""
    units: dict[Hashable, list[Cell]] = {}
    for cell in cells:
        units.setdefault(cell.trial.unit, []).append(cell)
    found: dict[Hashable, dict[str, Answers]] = {}
    for unit, same in units.items():
        parts = {}
        for name, part in same[0].trial.parts.items():
            lines = [records[cell.key]["parts"].get(name) for cell in same]
            if all(line is not None for line in lines):
                for cell, line in zip(same, lines, strict=True):
                    if len(line["answers"]) != len(part.test):
                        raise PromptotError(
                            f"The result of {cell.trial.task}, seed {cell.seed}, "
                            f"{cell.method.label}, has {len(line['answers'])} answers for "
                            f"{len(part.test)} images.",
                            fix=f"Remove the line of the cell '{cell.key[:12]}…': it will run "
                            "again.",
                        )
                right = np.array([[_share(a) for a in line["answers"]] for line in lines])
                parts[name] = Answers(right, [example.path for example in part.test])
        found[unit] = parts
    return found


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


def _diagnostics(records: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    means = {}
    for key in DIAGNOSTICS:
        values = [
            record["seconds"] if key == "seconds" else record["training"].get(key)
            for record in records
            if is_result(record)
        ]
        measured = [value for value in values if value is not None]
        if measured:
            means[key] = math.fsum(measured) / len(measured)
    return means


def _notes(
    trials: Sequence[Trial],
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
    few = [trial for trial in trials if len(seeds) > 1 and _takes_all(trial)]
    if few:
        units = ", ".join(dict.fromkeys(f"{trial.task} (K = {trial.shots})" for trial in few))
        notes.append(
            f"No class has more images than were asked for in {units}: there every seed learns "
            "from the same images, and seeds differ in start, order and augmentation alone."
        )
    return notes


def _takes_all(trial: Trial) -> bool:
    counts: dict[int, int] = {}
    for example in trial.pool.train:
        counts[example.label] = counts.get(example.label, 0) + 1
    return max(counts.values()) <= trial.shots
