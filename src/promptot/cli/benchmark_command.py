"""`promptot benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, interruption_note, plain, progress_bar

if TYPE_CHECKING:
    from promptot.experiments.benchmarking import Benchmark

SETTINGS = ("methods", "tasks", "seeds", "shots", "overrides", "read_at")
"""What the settings of a suite's cells depend on, which take no data and no weights."""


class BenchmarkOptions(common.Options):
    """What `promptot benchmark` takes."""

    protocol: Annotated[
        Literal["base-to-novel", "cross-dataset", "domain-generalization", "few-shot"],
        typer.Argument(help="What is trained on and what is tested.", metavar="PROTOCOL"),
    ]
    out: Annotated[Path | None, "--out", "-o", "Folder for results and report."] = None
    methods: Annotated[
        str,
        *("--methods", "-m"),
        "Recipes by commas, each with values and a name of its own if it needs them: "
        "prompt-ot,weak=prompt-ot[objective.strength=3].",
    ] = "zero-shot,ivlp,prompt-ot"
    tasks: Annotated[
        str, "bundled:<group>, or what `fit` takes, by commas; all bundled groups if not given."
    ] = ""
    sources: Annotated[str, "Those of the tasks to train on, by commas; all if not given."] = ""
    seeds: Annotated[str, "By commas."] = "1,2,3"
    shots: Annotated[
        str | None, "Images per class; by commas for few-shot. Default 16; 1,2,4,8,16."
    ] = None
    overrides: common.Overrides = None
    control: Annotated[
        str | None, "Method to compare with; pointwise, or the first one, if not given."
    ] = None
    split: Annotated[
        Literal["test", "validation"],
        "Images to test on; validation is for choosing settings.",
    ] = "test"
    backbone: common.BackboneName = "bundled:tiny"
    computing: common.Computing
    cache: Annotated[Path | None, "Folder for image features; OUT/cache if not given."] = None
    report_only: Annotated[bool, "Run nothing; sum up what is finished."] = False
    suite: Annotated[str | None, "Public data sets instead of tasks: coop."] = None
    root: Annotated[Path | None, "The folder that holds the data sets of the suite."] = None
    unverified: Annotated[bool, "Accept other counts than the published ones."] = False
    shot_lists: Annotated[Path | None, "Folder of shot lists to learn from instead of drawing."] = (
        None
    )
    split_shares: Annotated[
        str | None, "Of training, validation and test where a task has no splits; 0.5,0.2,0.3."
    ] = None
    read_at: Annotated[
        Literal["last", "published"],
        "Epoch to test: the last, or the one whose figures were published.",
    ] = "last"
    settings: Annotated[bool, "Print each cell's settings in a suite; run nothing."] = False
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes to share it.")] = 1
    estimate: Annotated[bool, "Say what the missing cells will cost; run nothing."] = False


def benchmark(options: BenchmarkOptions, screen: Screen) -> None:
    """Compare methods by a protocol; run what is missing, then write tables and a page.

    Protocols: base-to-novel, cross-dataset, domain-generalization, few-shot.
    """
    request = options.keywords(
        *("protocol", "out", "settings", "estimate", "report_only", "workers"),
        tasks=tuple(common.by_commas(options.tasks)),
        sources=tuple(common.by_commas(options.sources)),
        seeds=tuple(common.integers("--seeds", options.seeds)),
        overrides=tuple(options.overrides or ()),
        shots=None if options.shots is None else tuple(common.integers("--shots", options.shots)),
    )
    if options.settings:
        result = _list_settings(screen, options, request)
    elif options.out is None:
        raise typer.BadParameter("Missing option '--out' / '-o': the folder for the results.")
    else:
        if options.split_shares is not None:
            request["split_shares"] = common.three_shares(options.split_shares)
        act = _estimate if options.estimate else _run
        result = act(screen, options, options.out, request)
    screen.result(result)


def _list_settings(
    screen: Screen, options: BenchmarkOptions, request: dict[str, Any]
) -> dict[str, Any]:
    from promptot.experiments.benchmarking import benchmark_settings
    from promptot.experiments.report.benchmark_tables import settings_table
    from promptot.experiments.settings_listing import as_json
    from promptot.reports import rich_table

    asked = {name: request[name] for name in SETTINGS if name in request}
    cells, rows = benchmark_settings(options.protocol, suite=options.suite, **asked)
    screen.print(rich_table(settings_table(rows)))
    return {
        "suite": options.suite,
        "protocol": options.protocol,
        "read_at": options.read_at,
        "cells": [as_json(cell) for cell in cells],
        "rows": [as_json(row) for row in rows],
    }


def _estimate(
    screen: Screen, options: BenchmarkOptions, out: Path, request: dict[str, Any]
) -> dict[str, Any]:
    from promptot.cli.suite_tables import forecast_json, show_forecast
    from promptot.experiments.benchmarking import forecast_benchmark

    forecast = forecast_benchmark(options.protocol, out, **request)
    show_forecast(screen, forecast)
    return forecast_json(forecast)


def _run(
    screen: Screen, options: BenchmarkOptions, out: Path, request: dict[str, Any]
) -> dict[str, Any]:
    from promptot.cli.fit_progress import benchmark_listener
    from promptot.experiments.benchmarking import RESULTS, benchmark

    results = out / RESULTS
    note = f"All finished cells are kept in {plain(results)}; the same command goes on from there."
    with interruption_note(note, results.is_file), progress_bar() as bar:
        result = benchmark(
            options.protocol,
            out,
            workers=options.computing.workers,
            report_only=options.report_only,
            listener=benchmark_listener(bar, forecast=options.suite is not None),
            **request,
        )
    if result.ran == 0 and not options.report_only:
        screen.say(
            f"All {result.cells} cells were in {plain(results)} already: nothing was left to run."
        )
    _show(screen, result)
    return result.as_json()


def _show(screen: Screen, result: Benchmark) -> None:
    from promptot.experiments.report.benchmark_tables import benchmark_tables, settings_table
    from promptot.reports import rich_table

    for table in benchmark_tables(result.summary)[: 3 if result.summary.published else 2]:
        screen.print(rich_table(table))
    if result.summary.settings:
        small_print = " ".join(result.summary.small_print)
        screen.print(rich_table(settings_table(result.summary.settings, small_print)))
    for text in (*result.summary.notes, *result.problems):
        screen.say(f"[yellow]Note:[/] {plain(text)}")
    screen.say(f"Report: [bold]{plain(result.files[-1])}[/]")
