"""A whole benchmark: which cells there are, run what is missing, write tables and a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.experiments.cell_progress import BenchmarkListener
from promptot.experiments.cells import VERSION, Cell
from promptot.experiments.executor import ProcessExecutor, SerialExecutor
from promptot.experiments.forecast import Forecast, make_forecast
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.planning import BenchmarkSettings, Plan, list_settings, make_plan
from promptot.experiments.report.benchmark_page import write_benchmark_page
from promptot.experiments.report.benchmark_tables import TABLES, write_tables
from promptot.experiments.result_folder import check_result_folder
from promptot.experiments.run_cell import CellContext
from promptot.experiments.run_cells import CellWork, run_missing
from promptot.experiments.settings_listing import CellSettings, SettingsRow, as_json, sum_up
from promptot.experiments.store import FolderStore
from promptot.experiments.summary import Summary, summarise
from promptot.runs.keyword_settings import takes
from promptot.runs.learning import check_recipe

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
        summary = self.summary
        lists = ("tasks", "tested", "seeds", "shots", "notes", "small_print")
        return {
            "protocol": summary.protocol,
            "split": summary.split,
            **{name: list(getattr(summary, name)) for name in lists},
            "control": summary.control,
            "cells": self.cells,
            "ran": self.ran,
            "problems": list(self.problems),
            "settings": [as_json(row) for row in summary.settings],
            "methods": [
                {
                    "method": method.label,
                    **{key: figure.mean for key, figure in method.figures.items()},
                    "rank": method.rank,
                    "differences": {
                        key: [gap.value, gap.low, gap.high]
                        for key, gap in method.differences.items()
                    },
                    "diagnostics": dict(method.diagnostics),
                }
                for method in summary.methods
            ],
            "files": [str(path) for path in self.files],
        }


@takes(BenchmarkSettings)
def benchmark(settings: BenchmarkSettings) -> Benchmark:
    """Compare methods by a protocol: run the cells that are missing, then sum all of them up.

    A cell is one method, task, number of shots and seed; each leaves a line in `results.jsonl`. The
    same call goes on after an interruption; another call with the same folder shares its cells
    where they are the same, and shares what was computed from the images. Several calls may run at
    once in one folder: no cell runs twice.

    Args:
        protocol: "base-to-novel", "cross-dataset", "domain-generalization" or "few-shot".
        out: folder for `results.jsonl`, `tables.md`, `.csv` and `.tex`, and `report.html`.
        methods: recipes (names or YAML files) between commas, each with values of its own in square
            brackets, as `prompt-ot[objective.strength=3]`, and a label before it, as `weak=ivlp`.
        tasks: what `load_task` takes, such as "bundled:animals", folders and tables of images; none
            stands for all bundled groups but `unseen`. Of a suite, the data sets to use where not
            all that the protocol needs.
        sources: the tasks to train on, where not all.
        seeds: of shots, start and order.
        shots: images per class; by default 16, and for few-shot 1, 2, 4, 8, 16, up to what the
            tasks have.
        overrides: recipe values for all methods, as in `fit`.
        control: label of the method to compare with; by default "pointwise" where it takes part,
            else the first.
        split: "validation" tests on validation images, to choose settings by.
        suite: a suite of public data sets, such as "coop", instead of tasks.
        root: the folder that holds the data sets of the suite.
        unverified: accept data sets whose numbers of classes and images are not the published ones.
        shot_lists: folder of shot lists (`promptot data shots`) to learn from instead of drawing.
        read_at: of a suite, the epoch whose prompts are tested: the last one's, or those that the
            published figures are of.
        split_shares: of training, validation and test in each class of a task without splits of its
            own.
        backbone: a name (see `load_backbone`) or a loaded backbone.
        device: as in `fit`; it and `precision` do not touch a loaded backbone.
        precision: see `load_backbone`.
        workers: processes that load images.
        cache: folder for what is computed from images; by default one in `out`.
        report_only: run nothing; sum up what is finished.
        jobs: processes that run cells; for more than one the backbone is given by its name.
        executor: runs the cells, instead of `jobs` processes.
        listener: who is told how it goes.

    Returns:
        the figures of all methods, what failed, and the files that were written.

    Raises:
        PromptotError: with what to do about it.

    Example:
        >>> found = benchmark(
        ...     "base-to-novel", "runs/comparison", methods="zero-shot,ivlp,prompt-ot",
        ...     tasks=["bundled:activities"], shots=[4], overrides={"optim": {"epochs": 10}},
        ... )  # doctest: +SKIP
        >>> found.as_json()["methods"]  # doctest: +SKIP
    """
    check_result_folder(settings.folder, FILES, RESULTS, ("cell", "protocol"), "benchmark")
    plan = make_plan(settings)
    store = _store(settings)
    records = store.read()  # a damaged file is told of before anything is loaded
    backbone = settings.load_backbone()
    cells = plan.cells(backbone)
    done = {key for key, record in records.items() if record.is_result}
    missing = [cell for cell in cells if cell.key not in done]
    if not settings.report_only:
        _check_methods(missing, backbone)
    if missing:
        store.warn_of_old(records, VERSION)
    if not settings.report_only:
        listener = settings.listener or BenchmarkListener()
        if listener.hears("on_forecast"):
            listener.on_forecast(make_forecast(missing, plan.by_unit, backbone, settings.jobs))
        context = _context(settings, plan, backbone)
        elsewhere = replace(settings, executor=None, listener=None)
        work = CellWork(store, partial(_open_context, elsewhere), context)
        jobs = ProcessExecutor(settings.jobs) if settings.jobs > 1 else SerialExecutor()
        run_missing(cells, work, settings.executor or jobs, listener)
        records = store.read()
    summary = summarise(plan, cells, records, backbone.name)
    files = [*write_tables(summary, settings.folder), settings.folder / PAGE]
    write_benchmark_page(summary, settings.folder / PAGE)
    problems = [
        f"{cell.task}, seed {cell.seed}, {cell.method.label}: {records[cell.key].problem}"
        for cell in cells
        if cell.key in records and not records[cell.key].is_result
    ]
    ran = 0 if settings.report_only else len(missing)
    return Benchmark(summary, problems, files, len(cells), ran)


@takes(BenchmarkSettings)
def forecast_benchmark(settings: BenchmarkSettings) -> Forecast:
    """What the cells that `benchmark` would run will cost; a few timed steps, nothing learns.

    Args:
        settings: as in `benchmark`.

    Raises:
        PromptotError: as `benchmark` raises it.
    """
    plan = make_plan(settings)
    records = _store(settings).read()
    done = {key for key, record in records.items() if record.is_result}
    backbone = settings.load_backbone()
    missing = [cell for cell in plan.cells(backbone) if cell.key not in done]
    return make_forecast(missing, plan.by_unit, backbone, settings.jobs)


def benchmark_settings(
    protocol: str, suite: str | None = "coop", **settings: Any
) -> tuple[list[CellSettings], list[SettingsRow]]:
    """The settings of every cell of a suite, and the same in a few rows.

    Neither data nor weights are needed.

    Args:
        protocol, suite: as in `benchmark`; only a suite has published settings.
        settings: the attributes of `BenchmarkSettings`.

    Raises:
        PromptotError: as `benchmark` raises it.

    Example:
        >>> cells, rows = benchmark_settings("base-to-novel", methods="coop", seeds=(1,))
        >>> len(cells), [(row.where, row.epochs) for row in rows]
        (11, [('ImageNet', 50), ('all but ImageNet', 200)])
    """
    cells = list_settings(BenchmarkSettings(protocol, "", suite=suite, **settings))
    return cells, sum_up(cells)


def _store(settings: BenchmarkSettings) -> FolderStore:
    return FolderStore(settings.folder / RESULTS, settings.folder / "claims")


def _context(settings: BenchmarkSettings, plan: Plan, backbone: Backbone) -> CellContext:
    """What cells are run with in this process."""
    cache = settings.folder / "cache" if settings.cache is None else Path(settings.cache)
    return CellContext(
        plan.by_unit,
        backbone,
        ImageFeatures(cache, backbone, settings.workers),
        cache,
        settings.folder / "shots",
        settings.workers,
        (settings.listener or BenchmarkListener()).on_progress,
    )


def _check_methods(cells: Sequence[Cell], backbone: Backbone) -> None:
    """Refuse a method that the backbone can't be adapted by, before any cell is computed.

    Raises:
        PromptotError: as `check_recipe` raises it; it names the method.
    """
    for name, cell in {cell.method.label: cell for cell in cells}.items():
        try:
            check_recipe(cell.method.recipe, backbone)
        except PromptotError as error:
            raise PromptotError(
                f"The method '{name}' can't be compared here. {error.problem}",
                fix=f"Leave it out of the methods. {error.fix}",
            ) from error


def _open_context(settings: BenchmarkSettings) -> CellContext:
    """The same in another process, which finds the images again."""
    plan = make_plan(settings)
    context = _context(settings, plan, settings.load_backbone())
    context.check_images = True
    return context
