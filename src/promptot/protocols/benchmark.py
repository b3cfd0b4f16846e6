"""A whole benchmark: which cells there are, run what is missing, write tables and a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone, load_backbone
from promptot.devices import pick_device
from promptot.errors import PromptotError, nearest
from promptot.protocols.cells import make_cells
from promptot.protocols.methods import Method, parse_methods
from promptot.protocols.protocol import PROTOCOLS
from promptot.protocols.results import ResultFile
from promptot.protocols.runner import Observer, is_result, run_missing
from promptot.protocols.summary import Summary, summarise
from promptot.protocols.trials import Source, Split, load_sources
from promptot.reports.benchmark_page import write_benchmark_page
from promptot.reports.benchmark_tables import write_tables
from promptot.tasks.sources import BUNDLED

RESULTS = "results.jsonl"
CACHE = "cache"
PAGE = "report.html"
METHODS = "zero-shot,ivlp,prompt-ot"
SHOTS = 16
FEW_SHOTS = (1, 2, 4, 8, 16)


@dataclass(frozen=True)
class Benchmark:
    """What a benchmark left.

    Attributes:
        summary: the figures.
        problems: a sentence for each cell that failed.
        files: the tables and the page.
        cells: how many there are.
    """

    summary: Summary
    problems: Sequence[str]
    files: Sequence[Path]
    cells: int

    def as_json(self) -> dict[str, Any]:
        """The figures, method by method."""
        return {
            "protocol": self.summary.protocol,
            "split": self.summary.split,
            "tasks": list(self.summary.tasks),
            "seeds": list(self.summary.seeds),
            "shots": list(self.summary.shots),
            "control": self.summary.control,
            "cells": self.cells,
            "problems": list(self.problems),
            "notes": list(self.summary.notes),
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
) -> Benchmark:
    """Compare methods by a protocol: run the cells that are missing, then sum all of them up.

    A cell is one method, task, number of shots and seed; each leaves a line in `results.jsonl`. The
    same call goes on after an interruption; another call with the same folder shares its cells
    where they are the same, and shares what was computed from the images.

    Args:
        protocol: one of `PROTOCOLS`.
        out: folder for `results.jsonl`, `tables.md`, `.csv` and `.tex`, and `report.html`.
        methods: see `parse_methods`.
        tasks: what `load_task` takes, such as "bundled:<group>", folders and tables of images; none
            stands for all bundled groups but `unseen`.
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

    Raises:
        PromptotError: with what to do about it.
    """
    if protocol not in PROTOCOLS:
        raise PromptotError(f"Unknown protocol '{protocol}'.", fix=nearest(protocol, PROTOCOLS))
    chosen = PROTOCOLS[protocol]
    if not seeds or len(set(seeds)) < len(seeds) or min(seeds) < 0:
        raise PromptotError(
            f"The seeds {', '.join(map(str, seeds))} can't be used.",
            fix="Give different numbers from 0 up, such as --seeds 1,2,3.",
        )
    compared = parse_methods(methods, overrides)
    control = _control(compared, control)
    loaded = load_sources(tasks)
    counts = tuple(shots) if shots else _default_shots(loaded, chosen.several_shots)
    if min(counts) < 1 or len(set(counts)) < len(counts):
        raise PromptotError(
            f"The shots {', '.join(map(str, counts))} can't be used.",
            fix="Give different numbers from 1 up, such as --shots 1,2,4.",
        )
    if len(counts) > 1 and not chosen.several_shots:
        raise PromptotError(
            f"{protocol} takes one number of shots.", fix="Compare several with few-shot."
        )
    trials = chosen.trials(loaded, sources, counts, split)
    folder = Path(out)
    _check_folder(folder, tasks)
    results = ResultFile(folder / RESULTS)
    results.read()  # a damaged file is told of before anything is loaded
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)
    cells = make_cells(protocol, trials, compared, seeds, split, backbone)
    if not report_only:
        kept = folder / CACHE if cache is None else Path(cache)
        run_missing(cells, results, backbone, kept, workers, observer or Observer())
    records = results.read()
    summary = summarise(chosen, cells, records, control, backbone.name)
    files = [*write_tables(summary, folder), folder / PAGE]
    write_benchmark_page(summary, folder / PAGE)
    problems = [
        f"{cell.trial.task}, seed {cell.seed}, {cell.method.label}: {records[cell.key]['problem']}"
        for cell in cells
        if cell.key in records and not is_result(records[cell.key])
    ]
    return Benchmark(summary, problems, files, len(cells))


def _check_folder(folder: Path, tasks: Sequence[str]) -> None:
    """Refuse a place where nothing can be written, or where it would become a class."""
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise PromptotError(f"'{place}' is a file.", fix="Choose another place for --out.")
    place = folder.resolve()
    for task in tasks:
        if not task.startswith(BUNDLED) and Path(task).resolve() in (place, *place.parents):
            raise PromptotError(
                f"The folder '{folder}' lies in the image folder '{task}', where folders are "
                "classes.",
                fix="Choose a place outside it.",
            )


def _control(methods: Sequence[Method], wanted: str | None) -> str:
    labels = [method.label for method in methods]
    if wanted is None:
        return "pointwise" if "pointwise" in labels else labels[0]
    if wanted not in labels:
        raise PromptotError(f"The control '{wanted}' takes no part.", fix=nearest(wanted, labels))
    return wanted


def _default_shots(sources: Sequence[Source], several: bool) -> tuple[int, ...]:
    if not several:
        return (SHOTS,)
    most = max(max(Counter(e.label for e in s.task.train).values()) for s in sources)
    return tuple(k for k in FEW_SHOTS if k <= most) or FEW_SHOTS[:1]
