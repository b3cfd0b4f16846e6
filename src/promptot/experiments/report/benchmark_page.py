"""A benchmark's page: tables and figures in one file, without a script, light and dark."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from promptot.experiments.report.benchmark_figures import (
    Dot,
    Gap,
    Line,
    gaps_figure,
    lines_figure,
    plane_figure,
    strength_families,
)
from promptot.experiments.report.benchmark_tables import (
    format_figure,
    format_gap,
    main_tables,
    task_tables,
)
from promptot.files.writing import write_text
from promptot.reports.canvas import legend_point
from promptot.reports.page import breakable, format_setting, render_page

if TYPE_CHECKING:
    from promptot.experiments.summary import MethodSummary, Summary


def write_benchmark_page(summary: Summary, path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, atomically.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    write_text(path, render_benchmark_page(summary))


def render_benchmark_page(summary: Summary) -> str:
    """The page as HTML."""
    own, shared = _settings(summary.methods)
    over = f"tasks: {', '.join(summary.tasks)}"
    if summary.tested:
        over = f"trained on {over.removeprefix('tasks: ')}, tested on {', '.join(summary.tested)}"
    seeds, shots = (", ".join(map(str, numbers)) for numbers in (summary.seeds, summary.shots))
    return render_page(
        "benchmark.html.j2",
        title=f"promptot benchmark: {summary.protocol}",
        headline=breakable(benchmark_headline(summary)),
        subtitle=f"{len(summary.methods)} methods; {over}; seeds {seeds}; K = {shots}; "
        f"{summary.split} images; {summary.backbone}.",
        summary=summary,
        tables=main_tables(summary),
        by_task=task_tables(summary),
        legend_point=legend_point,
        places={method.label: place for place, method in enumerate(summary.methods)},
        figures=_figures(summary),
        settings=own,
        shared=shared,
    )


def benchmark_headline(summary: Summary) -> str:
    """One sentence on who leads in the main figure, and whether that is clear."""
    metric = summary.metrics[0]
    measured = [method for method in summary.methods if metric.key in method.figures]
    if not measured:
        return "No method has figures."
    best = max(measured, key=lambda method: method.figures[metric.key].mean)
    text = f"{best.label} has the best {metric.label}: {format_figure(best.figures[metric.key])}"
    if best.label == summary.control:
        if len(summary.seeds) == 1:
            return f"{text}, with one seed, which tells nothing of others."
        rivals = [m for m in measured if metric.key in m.differences]
        clear = [m for m in rivals if m.differences[metric.key].is_clear]
        return f"{text}; {len(clear)} of {len(rivals)} others differ clearly from it."
    gap = best.differences.get(metric.key)
    if gap is None:
        return f"{text}."
    verdict = "" if gap.is_clear else ", which is no clear difference"
    if not gap.over_seeds:
        verdict = ", an interval over images only: one seed tells nothing of others"
    return f"{text}, against {summary.control} {format_gap(gap)} points{verdict}."


def _figures(summary: Summary) -> list[tuple[str, str]]:
    """SVGs with their captions: those that the figures allow."""
    places = {method.label: place for place, method in enumerate(summary.methods)}
    drawn = []
    if {"base", "novel"} <= {metric.key for metric in summary.metrics}:
        dots = [
            Dot(places[m.label], m.label, b, n)
            for m in summary.methods
            if (b := m.figures.get("base")) and (n := m.figures.get("novel"))
        ]
        if dots:
            caption = "Base against novel; bars: standard deviation; contours: harmonic mean."
            drawn.append((plane_figure(dots), caption))
    main = summary.metrics[0]
    gaps = [
        Gap(places[m.label], m.label, gap)
        for m in summary.methods
        if (gap := m.differences.get(main.key))
    ]
    if gaps:
        over = "seeds and images" if len(summary.seeds) > 1 else "images only (one seed)"
        caption = f"Differences to {summary.control}, with 95 % intervals over {over}."
        drawn.append((gaps_figure(main.label, summary.control, gaps), caption))
    at = [f"test@{shots}" for shots in summary.shots]
    lines = [
        Line(places[m.label], m.label, summary.shots, [m.figures[key] for key in at])
        for m in summary.methods
        if all(key in m.figures for key in at)
    ]
    if lines:
        svg = lines_figure("Accuracy", "images per class", lines)
        drawn.append((svg, "Accuracy against shots; bars: standard deviation."))
    for section, sign in (("objective", "λ"), ("vocabulary", "strength of the vocabulary term")):
        drawn += _strengths(summary, places, section, sign)
    return drawn


def _strengths(
    summary: Summary, places: Mapping[str, int], section: str, sign: str
) -> list[tuple[str, str]]:
    methods = {method.written: method for method in summary.methods}
    families = strength_families({name: m.recipe for name, m in methods.items()}, section)
    untrained = next((m for m in summary.methods if m.recipe["prompts"]["design"] == "none"), None)
    drawn = []
    for metric in summary.metrics:
        if metric.key not in (summary.metrics[0].key, "retention"):
            continue
        lines = []
        for name, members in families.items():
            measured = [
                (strength, methods[written].figures[metric.key])
                for strength, written in members
                if metric.key in methods[written].figures
            ]
            if len(measured) > 1:
                place = places[methods[members[-1][1]].label]
                lines.append(Line(place, name, *zip(*measured, strict=True)))
        if lines:
            level = untrained.figures.get(metric.key) if untrained else None
            svg = lines_figure(metric.label, sign, lines, level.mean if level else None)
            names = ", ".join(line.name for line in lines)
            dashed = f"; dashed: {untrained.label}" if untrained and level else ""
            drawn.append((svg, f"{metric.label} against {sign}: {names}{dashed}."))
    return drawn


def _settings(
    methods: Sequence[MethodSummary],
) -> tuple[list[tuple[str, list[tuple[str, str]]]], list[tuple[str, str]]]:
    """What methods differ in: (method, [(key, value)]); and what is the same where it matters."""
    by_key: dict[str, dict[str, str]] = {}
    for method in methods:
        for key, value in method.settings.items():
            by_key.setdefault(key, {})[method.label] = format_setting(value)
    shared = {key: values for key, values in by_key.items() if len(set(values.values())) == 1}
    own = [
        (m.label, [(k, v[m.label]) for k, v in by_key.items() if k not in shared and m.label in v])
        for m in methods
    ]
    return own, [(key, next(iter(values.values()))) for key, values in shared.items()]
