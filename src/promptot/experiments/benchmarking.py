"""A whole benchmark: which cells there are, run what is missing, write tables and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone, load_backbone
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.experiments.cells import VERSION, Cell, make_cells
from promptot.experiments.forecast import Forecast, make_forecast
from promptot.experiments.planning import METHODS, Request, list_settings, make_plan
from promptot.experiments.published_settings import ReadAt
from promptot.experiments.report.benchmark_page import write_benchmark_page
from promptot.experiments.report.benchmark_tables import TABLES, write_tables
from promptot.experiments.result_folder import check_result_folder
from promptot.experiments.results_store import warn_of_old_results
from promptot.experiments.run_cells import Observer, Places, is_result, run_missing
from promptot.experiments.settings_listing import CellSettings, SettingsRow, as_json, sum_up
from promptot.experiments.summary import Summary, summarise
from promptot.experiments.trials import SPLIT, Shares, Split
from promptot.experiments.workers import Machine, default_places, run_in_processes

RESULTS = "results.jsonl"
PAGE = "report.html"
FILES = (RESULTS, *TABLES, PAGE)


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark left.

    Attributes:
        summary: the figures.
        problems: a sentence for each cell that failed.
        files: the tables and the page.
        cells: how many there are.
        ran: how many of them were missing and were to be run.
    """

    summary: Summary
    problems: Sequence[str]
    files: Sequence[Path]
    cells: int
    ran: int = 0

    def as_json(self) -> dict[str, Any]:
        """The figures, method by method."""
        return {
            "protocol": self.summary.protocol,
            "split": self.summary.split,
            "tasks": list(self.summary.tasks),
            "tested": list(self.summary.tested),
            "seeds": list(self.summary.seeds),
            "shots": list(self.summary.shots),
            "control": self.summary.control,
            "cells": self.cells,
            "ran": self.ran,
            "problems": list(self.problems),
            "notes": list(self.summary.notes),
            "small_print": list(self.summary.small_print),
            "settings": [as_json(row) for row in self.summary.settings],
            "methods": [
                {
                    "method": method.label,
                    **{key: figure.mean for key, figure in method.figures.items()},
                    "rank": method.rank,
                    "differences": {
                        key: [found.value, found.low, found.high]
                        for key, found in method.differences.items()
                    },
                    "diagnostics": dict(method.diagnostics),
                }
                for method in self.summary.methods
            ],
            "files": [str(path) for path in self.files],
        }


def run_benchmark(
    protocol: str,
    out: str | Path,
    *,
    methods: str = METHODS,
    tasks: Sequence[str] = (),
    sources: Sequence[str] = (),
    seeds: Sequence[int] = (1, 2, 3),
    shots: Sequence[int] | None = None,
    overrides: Sequence[str] = (),
    control: str | None = None,
    split: Split = "test",
    backbone: str | Backbone = "bundled:tiny",
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    cache: str | Path | None = None,
    report_only: bool = False,
    observer: Observer | None = None,
    suite: str | None = None,
    root: str | Path | None = None,
    unverified: bool = False,
    shot_lists: str | Path | None = None,
    jobs: int = 1,
    read_at: ReadAt = "last",
    split_shares: Shares = SPLIT,
) -> Benchmark:
    """Compare methods by a protocol: run the cells that are missing, then sum all of them up.

    A cell is one method, task, number of shots and seed; each leaves a line in `results.jsonl`. The
    same call goes on after an interruption; another call with the same folder shares its cells
    where they are the same, and shares what was computed from the images. Several calls may run at
    once in one folder: no cell runs twice.

    Args:
        protocol: one of `PROTOCOLS`.
        out: folder for `results.jsonl`, `tables.md`, `.csv` and `.tex`, and `report.html`.
        methods: see `parse_methods`.
        tasks: what `load_task` takes, such as "bundled:<group>", folders and tables of images; none
            stands for all bundled groups but `unseen`. Of a suite, the data sets to use where not
            all that the protocol needs.
        sources: the tasks to train on, where not all.
        seeds: of shots, start and order.
        shots: images per class; by default 16, and for few-shot 1, 2, 4, 8, 16, up to what the
            tasks have.
        overrides: recipe values for all methods.
        control: label of the method to compare with; by default "pointwise" where it takes part,
            else the first.
        split: "validation" tests on validation images, to choose settings by.
        backbone: a name (see `load_backbone`) or a loaded backbone.
        device: see `pick_device`; it and `precision` do not touch a loaded backbone.
        precision: see `load_backbone`.
        workers: processes that load images.
        cache: folder for what is computed from images; by default one in `out`.
        report_only: run nothing; sum up what is finished.
        observer: who is told how it goes.
        suite: a suite of public data sets, such as "coop", instead of tasks.
        root: the folder that holds the data sets of the suite.
        unverified: accept data sets whose numbers of classes and images are not the published ones.
        shot_lists: folder of shot lists to learn from instead of drawing; see `shot_list_name`.
        jobs: processes that run cells; for more than one the backbone is given by its name.
        read_at: of a suite, the epoch whose prompts are tested: the last one's, or those that the
            published figures are of.
        split_shares: of training, validation and test in each class of a task without splits of its
            own.

    Raises:
        PromptotError: with what to do about it.
    """
    request = Request(
        protocol,
        Path(out),
        methods,
        tuple(tasks),
        tuple(sources),
        tuple(seeds),
        tuple(shots) if shots else None,
        tuple(overrides),
        control,
        split,
        suite,
        None if root is None else Path(root),
        unverified,
        None if shot_lists is None else Path(shot_lists),
        read_at,
        split_shares,
    )
    if jobs < 1 or (jobs > 1 and isinstance(backbone, Backbone)):
        raise PromptotError(
            f"{jobs} jobs are not possible with this backbone.",
            fix="Give one or more, and the backbone's name: each process loads its own.",
        )
    check_result_folder(request.out, FILES, RESULTS, ("cell", "protocol"), "benchmark")
    plan = make_plan(request)
    places = default_places(request.out, cache)
    records = places.results.read()  # a damaged file is told of before anything is loaded
    name = None if isinstance(backbone, Backbone) else backbone
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)
    cells = make_cells(protocol, plan.trials, plan.methods, plan.seeds, split, backbone)
    observer = observer or Observer()
    missing = _missing(cells, places)
    if missing:
        warn_of_old_results(records, VERSION, places.results.path)
    if not report_only:
        if observer.on_forecast is not None:
            observer.on_forecast(make_forecast(missing, backbone, jobs))
        if jobs > 1 and name is not None:
            machine = Machine(name, device, precision, workers)
            run_in_processes(jobs, request, machine, places, cells, observer)
        else:
            run_missing(cells, places, backbone, workers, observer)
    records = places.results.read()
    summary = summarise(
        plan.protocol,
        cells,
        records,
        plan.control,
        backbone.name,
        published=plan.published,
        elsewhere=plan.elsewhere,
        notes=plan.notes,
    )
    files = [*write_tables(summary, request.out), request.out / PAGE]
    write_benchmark_page(summary, request.out / PAGE)
    problems = [
        f"{cell.trial.task}, seed {cell.seed}, {cell.method.label}: "
        f"{records[cell.key].get('problem', 'its line holds no result')}"
        for cell in cells
        if cell.key in records and not is_result(records[cell.key])
    ]
    ran = 0 if report_only else len(missing)
    return Benchmark(summary, problems, files, len(cells), ran)


def forecast_benchmark(
    protocol: str,
    out: str | Path,
    *,
    backbone: str | Backbone = "bundled:tiny",
    device: str = "auto",
    precision: str = "fp32",
    cache: str | Path | None = None,
    jobs: int = 1,
    **asked: Any,
) -> Forecast:
    """What the cells that `run_benchmark` would run will cost; a few trial steps, nothing learns.

    Args:
        protocol, out, backbone, device, precision, cache, jobs: as in `run_benchmark`.
        asked: the fields of `Request`.

    Raises:
        PromptotError: as `run_benchmark` raises it.
    """
    request = Request(protocol, Path(out), **asked)
    plan = make_plan(request)
    places = default_places(request.out, cache)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)
    cells = make_cells(protocol, plan.trials, plan.methods, plan.seeds, request.split, backbone)
    return make_forecast(_missing(cells, places), backbone, jobs)


def benchmark_settings(
    protocol: str, suite: str | None = "coop", **asked: Any
) -> tuple[list[CellSettings], list[SettingsRow]]:
    """The settings of every cell of a suite, and the same in a few rows.

    Neither data nor weights are needed.

    Args:
        protocol, suite: as in `run_benchmark`; only a suite has published settings.
        asked: the fields of `Request`.

    Raises:
        PromptotError: as `run_benchmark` raises it.

    Example:
        >>> cells, rows = benchmark_settings("base-to-novel", methods="coop", seeds=(1,))
        >>> len(cells), [(row.where, row.epochs) for row in rows]
        (11, [('ImageNet', 50), ('all but ImageNet', 200)])
    """
    cells = list_settings(Request(protocol, Path(), suite=suite, **asked))
    return cells, sum_up(cells)


def _missing(cells: Sequence[Cell], places: Places) -> list[Cell]:
    done = {key for key, record in places.results.read().items() if is_result(record)}
    return [cell for cell in cells if cell.key not in done]
