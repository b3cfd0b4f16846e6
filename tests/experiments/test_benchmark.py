"""Whole benchmarks, small: what runs, what is written, and what an interruption costs."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from promptot.backbones import Backbone
from promptot.errors import PromptotError
from promptot.evaluation.scoring import score
from promptot.experiments import PROTOCOLS, Benchmark, BenchmarkListener
from promptot.experiments.report.benchmark_tables import benchmark_tables
from promptot.experiments.scenarios import load_sources
from promptot.reports import rich_table
from promptot.runs import learning
from promptot.training.batches import evaluation_loader

Bench = Callable[..., Benchmark]


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def results(folder: Path) -> list[str]:
    """The lines without what differs from run to run."""
    return [json.dumps(line | {"seconds": 0}) for line in lines(folder)]


def tables(folder: Path) -> list[str]:
    """The CSV without the seconds."""
    return [
        row for row in (folder / "tables.csv").read_text().splitlines() if ",seconds," not in row
    ]


def test_every_cell_has_its_line_and_runs_once(
    bench: Bench, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    found = bench()
    written = lines(tmp_path / "out")
    assert found.cells == len(written) == 8
    assert [(line["task"], line["seed"], line["method"]) for line in written] == [
        (task, seed, method)
        for task in ("photos", "other")
        for seed in (1, 2)
        for method in ("zero-shot", "ivlp")
    ]
    for line in written:
        assert set(line["parts"]) == {"base", "novel"}  # all names of the other folder are its own
        for part in line["parts"].values():
            assert part["accuracy"] == part["answers"].count("1") / part["images"]
            assert len(part["answers"]) == part["images"]
    assert {line["training"].get("steps") for line in written} == {None, 1}
    assert {path.name for path in found.files} == {
        "tables.md",
        "tables.tex",
        "tables.csv",
        "report.html",
    }
    fails = watched(None)  # calling it would fail
    assert bench(executor=fails).as_json() == {**found.as_json(), "ran": 0}
    assert bench(report_only=True).as_json() == {**found.as_json(), "ran": 0}
    assert len(lines(tmp_path / "out")) == 8


def test_only_what_is_missing_runs(bench: Bench, tmp_path: Path) -> None:
    told = []
    listener = BenchmarkListener(on_cell=lambda record, done, total: told.append((done, total)))
    bench(seeds=(1,), methods="ivlp", listener=listener)
    bench(listener=listener)
    assert told == [(1, 2), (2, 2), *((done, 8) for done in range(3, 9))]
    assert len({line["cell"] for line in lines(tmp_path / "out")}) == 8


def test_an_exception_anywhere_costs_one_cell_and_changes_nothing(
    bench: Bench, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    methods = "ivlp,prompt-ot"
    bench(out="whole", methods=methods)
    calls = 0

    def interrupted(*arguments, **more):
        nonlocal calls
        calls += 1
        if calls in (2, 5):
            raise KeyboardInterrupt
        return learning.adapt(*arguments, **more)

    executor = watched(interrupted)
    for done in (1, 3):
        with pytest.raises(KeyboardInterrupt):
            bench(methods=methods, executor=executor)
        assert len(lines(tmp_path / "out")) == done
    bench(methods=methods, executor=executor)
    assert calls == 8 + 2
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")
def test_a_killed_process_goes_on_to_the_same_table(
    bench: Bench, tmp_path: Path, clip_file: Path
) -> None:
    """SIGKILL while a cell trains, and a line torn in the middle as a crash may leave it."""
    bench(out="whole", methods="zero-shot,ivlp,prompt-ot")
    arguments = [
        *("benchmark", "base-to-novel", "--out", tmp_path / "out", "--shots", 2),
        *("--tasks", f"{tmp_path / 'photos'},{tmp_path / 'other'}", "--seeds", "1,2"),
        *("--methods", "zero-shot,ivlp,prompt-ot", "--set", "optim.epochs=1"),
        *("--set", "data.views=1", "--backbone", f"openai:{clip_file}", "--device", "cpu"),
    ]
    # A wait after each cell, so that the signal comes in the middle and not after the end.
    code = (
        "import sys, time; from promptot.cli import main\n"
        "from promptot.experiments.store import FolderStore\n"
        "append = FolderStore.append\n"
        "FolderStore.append = lambda *a: (append(*a), time.sleep(0.2))\n"
        "main(sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": str(torch.get_num_threads())},  # same rounding
    )
    file = tmp_path / "out" / "results.jsonl"
    try:
        deadline = time.monotonic() + 120
        while not file.exists() or file.read_bytes().count(b"\n") < 2:
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=60)
    finally:
        process.kill()
    done = len(lines(tmp_path / "out"))
    assert 2 <= done < 12
    with file.open("ab") as torn:
        torn.write(b'{"cell": "0123')
    bench(methods="zero-shot,ivlp,prompt-ot")
    assert results(tmp_path / "out") == results(tmp_path / "whole")
    assert tables(tmp_path / "out") == tables(tmp_path / "whole")


def test_a_benchmark_without_any_result_has_its_tables_and_page(
    bench: Bench, tmp_path: Path
) -> None:
    found = bench(methods="ivlp", overrides=("optim.epochs=3", "optim.lr=1e30"))
    assert len(found.problems) == found.cells == 4
    assert (tmp_path / "out" / "tables.csv").read_text().count("\n") == 1
    assert all(path.is_file() for path in found.files)
    assert all(rich_table(table).row_count for table in benchmark_tables(found.summary)[:1])


def test_a_cell_that_fails_is_told_of_and_runs_again(
    bench: Bench, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    def diverges(backbone, task, recipe, *arguments, **more):
        if recipe.name == "ivlp" and task.name == "photos":
            raise PromptotError("The loss is not finite.", fix="Lower it.")
        return learning.adapt(backbone, task, recipe, *arguments, **more)

    found = bench(methods="zero-shot,ivlp,prompt-ot", executor=watched(diverges))
    assert found.problems == [
        f"photos, seed {seed}, ivlp: The loss is not finite. Lower it." for seed in (1, 2)
    ]
    zero, ivlp, ot = found.summary.methods
    assert not ivlp.figures
    assert ivlp.rank is None
    assert zero.figures
    assert ot.differences
    assert any("ivlp has no figures" in note for note in found.summary.notes)
    assert "| ivlp | – |" in (tmp_path / "out" / "tables.md").read_text()
    mended = bench(methods="zero-shot,ivlp,prompt-ot")
    assert mended.problems == []
    assert mended.summary.methods[1].figures


def test_tables_of_a_benchmark_that_is_still_running(bench: Bench, tmp_path: Path) -> None:
    with pytest.raises(PromptotError, match="No task is finished"):
        bench(report_only=True)
    folders = [str(tmp_path / name) for name in ("photos", "other")]
    stop = BenchmarkListener(on_cell=lambda record, done, total: done == 6 and sys.exit(1))
    with pytest.raises(SystemExit):
        bench(listener=stop)
    found = bench(report_only=True)
    assert found.summary.tasks == ["photos"]
    assert found.summary.notes[0] == "Not finished, and left out: other."
    alone = bench(tasks=folders, report_only=True)
    assert alone.as_json() == found.as_json()


def test_methods_share_views_and_test_features(
    bench: Bench, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    cells = []
    made = []  # how many cells were done by then

    def progress(what: str, done: int, total: int) -> None:
        if what == "augmenting" and done == total:
            made.append(len(cells))

    listener = BenchmarkListener(
        on_progress=progress, on_cell=lambda record, done, total: cells.append(record)
    )
    more = {"executor": watched(tokens=True), "listener": listener}
    bench(methods="zero-shot,ivlp,prompt-ot,ivlp[optim.lr=0.1]", **more)
    assert made == [1, 5]  # once for each seed: both folders hold the same images
    bench(out="again", methods="ivlp[optim.lr=0.2]", cache=tmp_path / "out" / "cache", **more)
    assert made == [1, 5]
    assert [cell.seed for cell in cells[::4]] == [1, 2, 1, 2, 1]
    assert not (tmp_path / "again" / "cache").exists()


@pytest.mark.parametrize("recipe", ["zero-shot", "zero-shot-7", "coop", "cocoop", "vpt", "ivlp"])
@pytest.mark.parametrize("keeps", [True, False])
def test_answers_are_those_of_the_model_on_the_images(
    bench: Bench, tmp_path: Path, backbone: Backbone, watched: Callable[..., Any],
    recipe: str, keeps: bool,
) -> None:  # fmt: skip
    """Nothing kept, no text shared: the plain way to the same accuracies."""
    models = []
    executor = watched(lambda *a, **m: models.append(learning.adapt(*a, **m)) or models[-1], keeps)
    photos = str(tmp_path / "photos")
    more = ("optim.epochs=2", "optim.lr=0.5", "data.views=1")
    bench(methods=recipe, tasks=[photos], seeds=(1,), overrides=more, executor=executor)
    (line,) = lines(tmp_path / "out")
    scenario, *_ = PROTOCOLS["base-to-novel"].scenarios(load_sources([photos]), [], [2], "test")
    for name, part in scenario.parts.items():
        plain = score(
            models[0].for_classes(part.class_names), evaluation_loader(backbone, part.test)
        )
        right = (plain.student.argmax(1) == plain.labels).long().tolist()
        assert line["parts"][name]["answers"] == "".join(map(str, right))


def test_what_learns_nothing_is_computed_once(
    bench: Bench, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    calls = []
    executor = watched(lambda *a, **m: calls.append(a[2].name) or learning.adapt(*a, **m))
    bench("few-shot", methods="zero-shot,linear-probe,ivlp", shots=(1, 2), executor=executor)
    assert calls.count("zero-shot") == 2  # tasks; shots and seeds change nothing
    assert calls.count("ivlp") == calls.count("linear-probe") == 8
    zero = [line for line in lines(tmp_path / "out") if line["method"] == "zero-shot"]
    assert len({line["cell"] for line in zero}) == 8


def test_no_name_of_the_test_is_an_anchor_word(bench: Bench, watched: Callable[..., Any]) -> None:
    read = []
    executor = watched(lambda *a, **m: read.append(set(m["held_out"])) or learning.adapt(*a, **m))
    bench(methods="prompt-ot-vocabulary", seeds=(1,), executor=executor)
    assert {"blue", "green apple", "red", "yellow"} <= read[0]


def test_a_linear_probe_can_not_answer_for_novel_names(bench: Bench, tmp_path: Path) -> None:
    found = bench(methods="zero-shot,linear-probe", seeds=(1,))
    _, probe = found.summary.methods
    assert probe.figures.keys() == {"base"}
    assert probe.differences.keys() == {"base"}
    assert probe.rank is None
    assert "| linear-probe | – |" in (tmp_path / "out" / "tables.md").read_text()


def test_few_shot_over_several_numbers_of_shots(bench: Bench) -> None:
    found = bench("few-shot", shots=(1, 2), seeds=(1,))
    keys = [metric.key for metric in found.summary.metrics]
    assert keys == ["test", "test@1", "test@2"]
    zero = found.summary.methods[0].figures
    assert zero["test@1"].mean == zero["test@2"].mean == zero["test"].mean
    assert bench("few-shot", out="default", shots=None, seeds=(1,)).summary.shots == [1, 2]


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"protocol": "base-to-nove"}, "Did you mean 'base-to-novel'"),
        ({"seeds": ()}, "seeds"),
        ({"seeds": (1, 1)}, "seeds"),
        ({"seeds": (-1,)}, "seeds"),
        ({"shots": (0,)}, "shots"),
        ({"shots": (1, 2)}, "takes one number of shots"),
        ({"control": "ivpl"}, "Did you mean 'ivlp'"),
    ],
)
def test_wrong_arguments_cost_nothing(
    bench: Bench, tmp_path: Path, more: dict, complaint: str
) -> None:
    with pytest.raises(PromptotError, match=complaint):
        bench(**more)
    assert not (tmp_path / "out").exists()


def test_the_control_is_pointwise_where_it_takes_part(bench: Bench) -> None:
    assert bench(methods="zero-shot,pointwise", seeds=(1,)).summary.control == "pointwise"
    found = bench(methods="zero-shot,pointwise", seeds=(1,), control="zero-shot")
    assert found.summary.control == "zero-shot"
    assert not found.summary.methods[0].differences
    assert found.summary.methods[1].differences


def test_a_folder_of_test_images_alone_is_refused_in_a_sentence(
    bench: Bench, photos: Path, tmp_path: Path
) -> None:
    shutil.copytree(photos, tmp_path / "alone" / "test")
    with pytest.raises(PromptotError):
        bench("few-shot", tasks=[str(tmp_path / "alone")], shots=None)
