"""Several processes on one benchmark: each takes the cells that no other one has."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import torch

from promptot.backbones import load_backbone
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.experiments.cells import Cell, make_cells
from promptot.experiments.planning import Request, make_plan
from promptot.experiments.results_store import NewLines
from promptot.experiments.run_cells import Observer, Places, is_result, run_missing
from promptot.reports.tables import printable

LOOK = 0.5  # seconds between two looks at what is finished


@dataclass(frozen=True)
class Machine:
    """What each process loads and uses."""

    backbone: str
    device: str
    precision: str
    loading: int  # processes that load images


def run_in_processes(
    jobs: int,
    request: Request,
    machine: Machine,
    places: Places,
    cells: Sequence[Cell],
    observer: Observer,
) -> None:
    """Run the missing cells in several processes, and tell of each as its line appears.

    Args:
        jobs: how many; each holds a backbone of its own.
        request, machine: from which each process makes the same cells.
        places: where everything goes.
        cells: all of them, to know how many there are.
        observer: who is told.

    Raises:
        PromptotError: a process came to an end before its time; what is finished is kept.
    """
    wanted = {cell.key for cell in cells}
    lines = NewLines(places.results)
    done = {key for key, record in lines.read().items() if is_result(record)} & wanted
    if done == wanted:
        return
    context = multiprocessing.get_context("spawn")  # a fork would share CUDA and threads
    threads = max(1, torch.get_num_threads() // jobs)
    processes: list[BaseProcess] = []
    try:
        for number in range(jobs):
            arguments = (request, machine, places, number / jobs, threads)
            processes.append(context.Process(target=_work, args=arguments))
            processes[-1].start()
        working = True
        while working:
            for process in processes:
                process.join(LOOK / jobs)
            working = any(process.is_alive() for process in processes)
            for key, record in lines.read().items():
                if key in wanted:
                    done.add(key)
                    observer.on_cell(record, len(done), len(wanted))
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
        for process in processes:
            process.join()
    ended = [process.exitcode for process in processes if process.exitcode != 0]
    if ended:
        raise PromptotError(
            f"{len(ended)} of {jobs} processes ended early (exit code {ended[0]}).",
            fix="See above for why; finished cells are kept, and the same command goes on. If "
            "memory ran out, use fewer --jobs.",
        )


def _work(request: Request, machine: Machine, places: Places, start: float, threads: int) -> None:
    """One process: plan, load, run what nobody else runs."""
    torch.set_num_threads(threads)
    try:
        plan = make_plan(request)
        device = pick_device(machine.device)
        backbone = load_backbone(machine.backbone, device, machine.precision)
        cells = make_cells(
            request.protocol, plan.trials, plan.methods, plan.seeds, request.split, backbone
        )
        run_missing(cells, places, backbone, machine.loading, Observer(), start)
    except KeyboardInterrupt:
        os._exit(130)  # the parent says what there is to say
    except PromptotError as error:
        print(printable(str(error)), flush=True)
        raise SystemExit(1) from None


def default_places(out: Path, cache: str | Path | None) -> Places:
    """Where a benchmark in `out` keeps what it makes."""
    from promptot.experiments.results_store import ResultFile

    return Places(
        ResultFile(out / "results.jsonl"),
        out / "cache" if cache is None else Path(cache),
        out / "claims",
        out / "shots",
    )
