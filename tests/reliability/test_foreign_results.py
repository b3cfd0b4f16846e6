"""Every other command that writes a folder or shares a file replaces what promptot wrote only."""

from __future__ import annotations

import csv
import errno
import json
import os
import py_compile
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tree import snapshot

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.cli import main
from promptot.errors import PromptotError
from promptot.experiments import benchmark as run_benchmark
from promptot.experiments import demo as demo_module
from promptot.exporting.export import EARLIER_FILES, FORMATS
from promptot.exporting.formats import ABOUT
from promptot.runs import hub
from promptot.runs.adapter import load_adapter, save_adapter
from promptot.runs.estimator import PromptClassifier
from promptot.runs.run_folder import locked
from promptot.runs.tracking.loggers import TensorBoard
from promptot.serving.flags import COLUMNS, Flag, FlagFile

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="links and locks")
QUICK = ["optim.epochs=1", "optim.batch_size=4"]
Train = Callable[..., Path]


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture(scope="module")
def made(small: Backbone, few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two finished runs with pages, `a` and `b`; not to be changed."""
    place = tmp_path_factory.mktemp("runs")
    for name, rate in (("a", "0.002"), ("b", "0.003")):
        promptot.fit(
            few_photos, place / name, backbone=small, device="cpu", shots=2, recipe="ivlp",
            overrides=[*QUICK, f"optim.lr={rate}"],
        )  # fmt: skip
    return place


@pytest.fixture
def runs(made: Path, tmp_path: Path) -> Path:
    """Copies of them."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


# tune, benchmark, demo


@pytest.fixture
def tune(small: Backbone, few_photos: Path) -> Callable:

    def call(out: Path, **options) -> promptot.experiments.tuning.Tuning:
        defaults = {"recipe": "prompt-ot", "budget": 1e-6, "validation_share": 0.5}
        options = {**defaults, "fewest_images": 3, "report": False, **options}
        return promptot.tune(
            few_photos, out, backbone=small, shots=1, device="cpu", overrides=QUICK, **options
        )

    return call


def test_tune_does_not_replace_the_recipe_it_starts_from(tune: Callable, tmp_path: Path) -> None:
    mine = tmp_path / "mine" / "recipe.yaml"
    write(mine, "prompts:\n  design: ivlp\nname: mine\n")
    (tmp_path / "link.yaml").symlink_to(mine)
    before = snapshot(tmp_path)
    for recipe in (mine, tmp_path / "link.yaml", tmp_path / "mine" / ".." / "mine" / "recipe.yaml"):
        with pytest.raises(PromptotError, match="is the recipe to start from.*another --out"):
            tune(tmp_path / "mine", recipe=recipe)
    assert snapshot(tmp_path) == before
    with pytest.raises(PromptotError, match=r"recipe.yaml' is there already, and no tuning"):
        tune(tmp_path / "mine", recipe="ivlp")
    assert snapshot(tmp_path) == before

    first = tune(tmp_path / "out", recipe=mine)
    trials = (tmp_path / "out" / "trials.jsonl").read_bytes()
    again = tune(tmp_path / "out", recipe=mine)  # the same command goes on
    assert (tmp_path / "out" / "trials.jsonl").read_bytes() == trials
    assert again.points == first.points
    assert mine.read_text().startswith("prompts:")


def test_tune_benchmark_and_demo_leave_a_run_and_one_another_alone(
    tune: Callable, runs: Path, small: Backbone, few_photos: Path
) -> None:
    benchmark = {"tasks": [str(few_photos)], "backbone": small, "report_only": True}
    write(runs / "page" / "report.html", "<p>mine")
    write(runs / "table" / "tables.csv", "mine")
    write(runs / "lines" / "results.jsonl", '{"name": "mine"}\n')
    write(runs / "lines" / "trials.jsonl", '{"name": "mine"}\n')
    write(runs / "lines" / "results.json", '{"name": "mine"}')
    write(runs / "word" / "results.jsonl", "mine")  # without an end of the line
    write(runs / "word" / "trials.jsonl", "mine")
    write(runs / "word" / "results.json", "mine")
    before = snapshot(runs)
    calls: dict[str, Callable[[Path], object]] = {
        "tuning": tune,
        "benchmark": lambda out: run_benchmark("base-to-novel", out, **benchmark),
        "demo": lambda out: demo_module.run_demo(out),
    }
    for what, call in calls.items():
        with pytest.raises(PromptotError, match="holds a run, whose report would be replaced"):
            call(runs / "a")
        for folder in ("page", "lines", "word", *(["table"] if what == "benchmark" else [])):
            reason = f"is there already, and no {what} wrote it|is not a result"
            with pytest.raises(PromptotError, match=reason):
                call(runs / folder)
    assert snapshot(runs) == before
    for place in ("page", "lines"):
        with (
            pytest.raises(PromptotError, match="needs this name")
            if place == "page"
            else (pytest.raises(PromptotError, match="nothing to resume"))
        ):
            promptot.fit(few_photos, runs / place, backbone=small, resume=True)
    assert {path for path in before if "page" in path} <= snapshot(runs).keys()


def test_a_benchmark_goes_on_in_its_own_folder(
    small: Backbone, few_photos: Path, tmp_path: Path
) -> None:
    options = {"tasks": [str(few_photos)], "backbone": small, "seeds": [1], "shots": [1]}
    found = run_benchmark("base-to-novel", tmp_path / "out", methods="zero-shot", **options)
    assert not found.problems
    lines = (tmp_path / "out" / "results.jsonl").read_bytes()
    run_benchmark("base-to-novel", tmp_path / "out", methods="zero-shot", **options)
    assert (tmp_path / "out" / "results.jsonl").read_bytes() == lines != b""
    (tmp_path / "out" / "results.jsonl").write_bytes(lines[:40])  # cut off within its first line
    run_benchmark("base-to-novel", tmp_path / "out", methods="zero-shot", **options)
    assert len((tmp_path / "out" / "results.jsonl").read_bytes().splitlines()) == len(
        lines.splitlines()
    )


# merge, and what an estimator saves


def test_merge_replaces_a_run_with_all_that_belongs_to_it(runs: Path, small: Backbone) -> None:
    write(runs / "a" / "flags.csv", "mine")
    learned = [load_adapter(runs / name / "adapter")[1] for name in "ab"]
    promptot.merge([runs / "a", runs / "b"], runs / "a", overwrite=True)
    assert {path.name for path in (runs / "a").iterdir()} == {
        "adapter", "manifest.json", "flags.csv"
    }  # fmt: skip
    found = load_adapter(runs / "a" / "adapter")[1]
    for ours, one, two in zip(found.parameters(), *(x.parameters() for x in learned), strict=True):
        assert (ours - (one + two) / 2).abs().max() < 1e-6


@pytest.mark.usefixtures("fast_clock")
def test_merge_takes_turns_and_is_never_half_there(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = snapshot(runs / "b")
    with locked(runs / "a"), pytest.raises(PromptotError, match="Another run is being written"):
        promptot.merge([runs / "a", runs / "b"], runs / "a", overwrite=True)

    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    content = {p: p.read_bytes() for p in (runs / "a").rglob("*") if p.is_file()}
    with pytest.raises(PromptotError, match="No space"):
        promptot.merge([runs / "a", runs / "b"], runs / "a", overwrite=True)
    with pytest.raises(PromptotError, match="No space"):
        promptot.merge([runs / "a", runs / "b"], runs / "new")
    assert {p: p.read_bytes() for p in (runs / "a").rglob("*") if p.is_file()} == content
    assert not (runs / "new").exists()
    assert snapshot(runs / "b") == before


def test_a_mean_gets_a_page_that_says_what_it_is(
    runs: Path, small: Backbone, few_photos: Path
) -> None:
    promptot.merge([runs / "a", runs / "b"], runs / "mean", [3, 1])
    with pytest.raises(PromptotError, match="is a mean of runs, which was tested on nothing yet"):
        promptot.report(runs / "mean", backbone=small)
    page = promptot.report(runs / "mean", few_photos, backbone=small)
    text = page.read_text(encoding="utf-8")
    assert page == runs / "mean" / "report.html"
    assert "mean of" in text
    assert f"{runs / 'a'} × 0.75" in text


def test_saving_an_estimator_over_a_run_leaves_nothing_of_it(runs: Path, small: Backbone) -> None:
    fitted = PromptClassifier.load(runs / "b", small)
    with pytest.raises(PromptotError, match="already holds a run"):
        fitted.save(runs / "a")
    fitted.save(runs / "a", overwrite=True)
    assert {path.name for path in (runs / "a").iterdir()} == {
        "adapter", "manifest.json", "steps.csv", "epochs.csv"
    }  # fmt: skip
    name = "adapter/prompts.safetensors"
    assert (runs / "a" / name).read_bytes() == (runs / "b" / name).read_bytes()
    write(runs / "mine" / ".next" / "BUILD_ID", "x")
    before = snapshot(runs / "mine")
    with pytest.raises(PromptotError, match="needs this name"):
        fitted.save(runs / "mine", overwrite=True)
    assert snapshot(runs / "mine") == before


def test_saving_an_adapter_replaces_an_adapter_only(runs: Path, small: Backbone) -> None:
    save_adapter(runs / "a" / "adapter", None, small, ("cat",), "a photo of a {}.")
    write(runs / "mine" / "thesis.txt", "years")
    before = snapshot(runs / "mine")
    with pytest.raises(PromptotError, match="holds other files than an adapter"):
        save_adapter(runs / "mine", None, small, ("cat",), "a photo of a {}.")
    assert snapshot(runs / "mine") == before
    (runs / "link").symlink_to(runs / "a" / "adapter")
    save_adapter(runs / "link", None, small, ("dog",), "a photo of a {}.")
    assert (runs / "link").is_symlink()
    assert load_adapter(runs / "a" / "adapter")[0].class_names == ("dog",)


def test_a_fetched_adapter_does_not_replace_a_readme_of_others(
    runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    huggingface_hub = pytest.importorskip("huggingface_hub")
    adapter = str(runs / "a" / "adapter")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *a, **k: adapter)
    write(runs / "mine" / "README.md", "mine")
    before = snapshot(runs / "mine")
    with pytest.raises(PromptotError, match="is not empty. Choose another folder"):
        hub.pull("user/name", runs / "mine", overwrite=True)
    assert snapshot(runs / "mine") == before
    hub.pull("user/name", runs / "new")
    hub.pull("user/name", runs / "new", overwrite=True)


def test_curves_of_others_stay(runs: Path) -> None:
    pytest.importorskip("tensorboard")
    theirs = runs / "a" / "tensorboard" / "events.out.tfevents.1.host.2.0"
    write(theirs, "theirs")
    for _ in range(2):
        tracker = TensorBoard(runs / "a")
        tracker.start({"resumed": False})
        tracker.finish({}, failed=False)
    assert theirs.read_text() == "theirs"
    assert len(list(theirs.parent.iterdir())) == 2  # ours was replaced by ours


# export


@pytest.fixture
def export(runs: Path, small: Backbone) -> Callable:
    def call(out: Path | str, **options) -> object:
        return promptot.export(runs / "a", out, "torchscript", backbone=small, **options)

    return call


def test_an_export_replaces_an_export_only(export: Callable, runs: Path) -> None:
    export(runs / "out")
    about = json.loads((runs / "out" / "classifier.json").read_text())
    assert about["files"] == ["classifier.json", "model.pt"]
    write(runs / ".old-out" / "thesis.txt", "years")  # earlier versions removed this name
    write(runs / "out" / "notes.txt", "mine")
    write(runs / "out" / "data" / "photo.jpg", "mine")
    before = snapshot(runs)
    with pytest.raises(PromptotError, match=r"Beside an export.*'data', 'notes.txt'"):
        export(runs / "out", overwrite=True)
    write(runs / "web" / "classifier.json", '{"files": ["thesis.txt"]}')
    write(runs / "web" / "thesis.txt", "years")
    web = snapshot(runs / "web")
    with pytest.raises(PromptotError, match="holds other files than an export"):
        export(runs / "web", overwrite=True)
    assert snapshot(runs / "web") == web
    assert {k: v for k, v in snapshot(runs).items() if k in before and k != str(runs)} == {
        k: v for k, v in before.items() if k != str(runs)
    }
    (runs / "out" / "notes.txt").unlink()
    shutil.rmtree(runs / "out" / "data")
    export(runs / "out", overwrite=True)
    assert (runs / ".old-out" / "thesis.txt").read_text() == "years"
    assert not list(runs.glob(".partial-*"))


def test_an_export_of_an_earlier_version_is_known_by_its_description(
    export: Callable, runs: Path
) -> None:
    export(runs / "out")
    place = runs / "out" / "classifier.json"
    about = json.loads(place.read_text())
    del about["files"]
    place.write_text(json.dumps(about))
    write(runs / "out" / "helper.py", "")
    with pytest.raises(PromptotError, match="Beside an export.*'helper.py'"):
        export(runs / "out", overwrite=True)
    (runs / "out" / "helper.py").unlink()
    export(runs / "out", overwrite=True)
    assert "files" in json.loads(place.read_text())


def test_an_export_cannot_list_what_is_not_its_own(export: Callable, runs: Path) -> None:
    """Names that no export has are refused, whoever wrote them into its description."""
    export(runs / "out")
    place = runs / "out" / "classifier.json"
    about = json.loads(place.read_text())
    assert set(about["files"]) <= {*EARLIER_FILES, ABOUT}
    for name in ("thesis.txt", "photo.jpg", "README.md"):
        write(runs / "out" / name, "years")
        place.write_text(json.dumps(about | {"files": [*about["files"], name]}))
        before = snapshot(runs / "out")
        with pytest.raises(PromptotError, match=f"Beside an export.*'{name}'"):
            export(runs / "out", overwrite=True)
        assert snapshot(runs / "out") == before
        (runs / "out" / name).unlink()
    export(runs / "out", overwrite=True)


@pytest.mark.parametrize("format", FORMATS)
def test_all_that_an_export_writes_is_known(runs: Path, small: Backbone, format: str) -> None:
    made = promptot.export(runs / "a", runs / "out", format, backbone=small)
    assert set(made.files) <= {*EARLIER_FILES, ABOUT}
    promptot.export(runs / "a", runs / "out", format, backbone=small, overwrite=True)


def test_bytecode_beside_an_exported_module_is_no_hindrance(runs: Path, small: Backbone) -> None:
    out = runs / "out"
    promptot.export(runs / "a", out, "open_clip", backbone=small)
    assert not (out / "__pycache__").exists()
    py_compile.compile(str(out / "prompted_open_clip.py"))
    assert (out / "__pycache__").is_dir()
    promptot.export(runs / "a", out, "open_clip", backbone=small, overwrite=True)
    write(out / "__pycache__" / "thesis.txt", "years")
    with pytest.raises(PromptotError, match="Beside an export.*__pycache__"):
        promptot.export(runs / "a", out, "open_clip", backbone=small, overwrite=True)


@pytest.mark.parametrize("out", [".", "..", "/", "link", "../a", "../../{name}"])
def test_an_export_does_not_replace_where_somebody_stands_or_the_run(
    export: Callable, runs: Path, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    (runs / "here").mkdir()
    (runs / "here" / "link").symlink_to(runs / "here")
    monkeypatch.chdir(runs / "here")
    before = snapshot(runs)
    with pytest.raises(PromptotError, match="would be replaced"):
        export(out.format(name=runs.name), overwrite=True)
    assert snapshot(runs) == before


def test_an_export_follows_a_link(export: Callable, runs: Path) -> None:
    (runs / "disk").mkdir()
    (runs / "out").symlink_to(runs / "disk")
    export(runs / "out")
    export(runs / "out", overwrite=True)
    assert (runs / "out").is_symlink()
    assert (runs / "disk" / "model.pt").is_file()
    assert not list(runs.glob(".partial-*"))


@pytest.mark.parametrize("command", ["export", "merge", "tune", "benchmark", "demo", "pull"])
@pytest.mark.parametrize("place", ["a file", "a link to nothing"])
def test_where_no_folder_can_be_every_command_says_so(
    command: str, place: str, export: Callable, tune: Callable, runs: Path, few_photos: Path,
    small: Backbone,
) -> None:  # fmt: skip
    out = runs / "out"
    out.write_text("mine") if place == "a file" else out.symlink_to("nowhere")
    before = snapshot(runs)
    calls: dict[str, Callable[[], object]] = {
        "export": lambda: export(out, overwrite=True),
        "merge": lambda: promptot.merge([runs / "a", runs / "b"], out, overwrite=True),
        "tune": lambda: tune(out),
        "benchmark": lambda: run_benchmark("few-shot", out, tasks=[str(few_photos)]),
        "demo": lambda: demo_module.run_demo(out),
        "pull": lambda: hub.pull("user/name", out, overwrite=True),
    }
    with pytest.raises(PromptotError, match=f"is {place}"):
        calls[command]()
    assert snapshot(runs) == before


def test_shot_lists_replace_shot_lists_only(
    public_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["data", "shots", "coop", "--root", str(public_data), "--tasks", "EuroSAT",
               "--shots", "1", "--seeds", "1", "--out"]  # fmt: skip
    for _ in range(2):
        with pytest.raises(SystemExit) as done:
            main([*command, str(tmp_path / "lists")])
        assert done.value.code == 0
    (listed,) = (tmp_path / "lists").iterdir()
    listed.write_text('{"name": "mine"}')
    (tmp_path / "link").symlink_to("nowhere")
    before = snapshot(tmp_path)
    for place, reason in (("lists", "is not a shot list"), ("link", "is a link to nothing")):
        with pytest.raises(SystemExit) as stop:
            main([*command, str(tmp_path / place)])
        assert stop.value.code == 1
        assert reason in capsys.readouterr().err
    assert snapshot(tmp_path) == before


# flags.csv

FLAG = {
    "image": "a.png", "sha256": "0" * 64, "strength": 0.5,
    **{key: {"name": "cat", "probability": 0.5} for key in ("frozen", "adapted", "between")},
}  # fmt: skip
ADD = """
import json, sys
from pathlib import Path
from promptot.serving.flags import Flag, FlagFile
sys.stdin.readline()
file = FlagFile(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    file.add(Flag.model_validate({**json.loads(sys.argv[4]), "right": f"{sys.argv[2]}-{number}"}))
"""


def test_two_pages_on_one_file_lose_no_flag(tmp_path: Path) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", ADD, str(tmp_path / "flags.csv"), name, "60", json.dumps(FLAG)],
            stdin=subprocess.PIPE,
        )
        for name in ("one", "two")
    ]
    for process in processes:  # both are ready by now, or nearly
        assert process.stdin is not None
        process.stdin.write(b"go\n")
        process.stdin.close()
    assert [process.wait(60) for process in processes] == [0, 0]
    with (tmp_path / "flags.csv").open(encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    assert tuple(header) == COLUMNS
    assert {row[3] for row in rows} == {f"{n}-{i}" for n in ("one", "two") for i in range(60)}
    assert len(rows) == 120


HEADER = ",".join(COLUMNS)
FOREIGN = {
    "other columns": b"name,label\na,b\n",
    "other line ends": f"{HEADER}\r\n".encode(),
    "a byte order mark": f"﻿{HEADER}\n".encode(),
    "another encoding": f"{HEADER}\n".encode("utf-16"),
    "no table": b"\x89PNG\r\n",
    "more columns": f"{HEADER},note\n".encode(),
    "one word": b"time",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_table_of_others_gets_no_flags(what: str, tmp_path: Path) -> None:
    write(tmp_path / "flags.csv", "")
    (tmp_path / "flags.csv").write_bytes(FOREIGN[what])
    before = snapshot(tmp_path)
    file = FlagFile(tmp_path / "flags.csv")
    for call in (file.check, lambda: file.add(Flag.model_validate(FLAG))):
        with pytest.raises(PromptotError, match="is not a file of flags as promptot writes it"):
            call()
    assert snapshot(tmp_path) == before


def test_flags_are_added_behind_rows_of_any_kind(tmp_path: Path) -> None:
    """What somebody wrote into the file by hand stays, also without a line break at its end."""
    place = tmp_path / "real.csv"
    start = f"{HEADER}\n".encode() + "von Hand, süß\r\n".encode("latin-1") + b"cut off"
    place.write_bytes(start)
    (tmp_path / "flags.csv").symlink_to(place)
    file = FlagFile(tmp_path / "flags.csv")
    file.check()
    assert file.add(Flag.model_validate(FLAG)) == 3
    found = place.read_bytes()
    assert found.startswith(start + b"\n")
    assert found.endswith(b"0.5000\n")
    assert (tmp_path / "flags.csv").is_symlink()


def test_serve_says_it_before_it_listens(
    runs: Path, small_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(runs / "mine.csv", "name,label\n")
    with pytest.raises(SystemExit) as stop:
        main(["serve", str(runs / "a"), "--port", "0", "--flags", str(runs / "mine.csv")])
    assert stop.value.code == 1
    assert "is not a file of flags" in capsys.readouterr().err
