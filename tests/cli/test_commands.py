"""What every command prints and where, and its exit codes."""

from __future__ import annotations

import csv
import io
import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import promptot

COMMANDS = (
    "demo",
    "fit",
    "benchmark",
    "evaluate",
    "report",
    "predict",
    "backbones",
    "recipes",
    "info",
)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_and_fits_80_columns(run, name: str) -> None:
    result = run(name, "--help")
    assert result.code == 0
    assert f"Example: promptot {name}" in result.out
    assert max(map(len, result.out.splitlines())) <= 80


def test_the_command_itself(run) -> None:
    assert run("--version").out.strip() == promptot.__version__
    overview = run("--help")
    assert overview.code == 0
    assert all(name in overview.out for name in COMMANDS)
    assert run().code == 2
    unknown = run("fti")
    assert unknown.code == 2
    assert "'fit'" in unknown.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("fit", "photos", "--out", "x", "--shots", "0"),
        ("fit", "photos", "--out", "x", "--test-share", "0.95"),
        ("fit", "photos", "--out", "x", "--test-share", "nan"),
        ("tune", "photos", "--out", "x", "--validation-share", "nan"),
        ("fit", "photos", "--out", "x", "--precision", "fp8"),
        ("fit", "photos", "--out", "x", "--seed", "-1"),
        ("fit", "photos", "--out", "x", "--seed", str(2**64)),
        ("fit", "photos", "--out", "x", "--workers", "-1"),
        ("fit", "photos", "--out", "x", "--classes", "half"),
        ("fit", "photos", "--out", "x", "--json", "photos"),
        ("fit", "photos"),
        ("benchmark", "zero-shot", "--out", "x"),
        ("benchmark", "few-shot"),
        ("benchmark", "few-shot", "--out", "x", "--split", "train"),
        ("predict", "run"),
        ("predict", "run", "a.png", "--top-k", "0"),
        ("predict", "run", "a.png", "--json", "-", "--format", "csv"),
    ],
)
def test_wrong_usage_is_exit_code_2(run, trained: Path, arguments: tuple[str, ...]) -> None:
    result = run(*arguments)
    assert result.code == 2
    assert result.out == ""
    assert "Usage: promptot" in result.err
    assert "Traceback" not in result.err
    assert not Path("x").exists()


def test_fit_says_what_it_does_and_what_comes_next(
    run, trained: Path, quick: list[str], tmp_path: Path
) -> None:
    out = tmp_path / "my [x] run"
    result = run("fit", "photos", "--out", out, *quick)
    assert result.code == 0
    assert "3 classes, 6 images to learn from (2 of each class), 3 images to test on" in (
        " ".join(result.err.split())
    )
    assert f"→ {out}" in result.err
    assert max(map(len, result.out.partition("Learnt")[0].splitlines())) <= 80
    line = next(line for line in result.out.splitlines() if line.startswith("Next: promptot "))
    assert run(*shlex.split(line)[2:], "--device", "cpu").code == 0


def test_json_to_standard_output_is_alone_there(run, trained: Path, quick: list[str]) -> None:
    fitted = run("fit", "photos", "--out", "second", *quick, "--json", "-")
    found = json.loads(fitted.out)
    assert found["class_names"] == ["blue", "green apple", "red"]
    assert set(found["results"]["test"]) == {"images", "classes", "zero_shot", "adapted"}
    low, high = found["results"]["test"]["adapted"]["interval"]
    assert low <= found["results"]["test"]["adapted"]["accuracy"] <= high
    assert "zero-shot" in fitted.err

    evaluated = run("evaluate", "run", "photos", "--json", "-")
    found = json.loads(evaluated.out)
    assert found["left_out"] == 6
    assert found["results"]["all classes"]["images"] == 6
    assert "all classes" in evaluated.err

    predicted = run("predict", "run", "photos/red/0.png", "--json", "-")
    assert json.loads(predicted.out)[0]["image"] == "photos/red/0.png"


@pytest.mark.parametrize(
    "arguments",
    [("backbones",), ("recipes",), ("recipes", "prompt-ot"), ("info",), ("info", "run")],
)
def test_listings_on_screen_and_as_json(run, trained: Path, arguments: tuple[str, ...]) -> None:
    shown = run(*arguments)
    assert shown.code == 0
    assert shown.err == ""
    assert max(map(len, shown.out.splitlines())) <= 80
    printed = run(*arguments, "--json", "-")
    assert printed.err == shown.out
    assert run(*arguments, "--json", "made/here.json").out == shown.out
    assert json.loads(printed.out) == json.loads(Path("made/here.json").read_text())


def test_recipes_name_shows_what_set_takes(run) -> None:
    shown = run("recipes", "prompt-ot").out
    assert "objective.strength" in shown
    assert "--set KEY=VALUE" in shown


def test_info_of_a_run(run, trained: Path) -> None:
    shown = run("info", "run").out
    for text in ("prompt-ot", "blue, green apple, red", "a photo of a {}.", "2,304 parameters"):
        assert text in shown


def test_predict_as_table_csv_and_json_lines(run, trained: Path) -> None:
    images = ("photos/red", "none.png", "photos/b*/1.png")
    table = run("predict", "run", *images, "--top-k", "99")
    assert table.code == 0
    assert "there is no such file" in " ".join(table.out.split())
    assert max(map(len, table.out.splitlines())) <= 80

    lines = [
        json.loads(line)
        for line in run("predict", "run", *images, "-f", "jsonl").out.split("\n")[:-1]
    ]
    names = [str(Path("photos", "red", f"{i}.png")) for i in range(4)]
    assert [line["image"] for line in lines] == [*names, "none.png", "photos/blue/1.png"]
    assert lines[4]["problem"] == "there is no such file"

    text = run("predict", "run", *images, "-f", "csv", "-k", "2").out
    rows = list(csv.DictReader(io.StringIO(text)))
    assert [row["image"] for row in rows] == [
        *[name for name in names for _ in range(2)],
        "none.png",
        *["photos/blue/1.png"] * 2,
    ]
    assert rows[0]["class_name"] == lines[0]["class_names"][0]
    assert float(rows[0]["probability"]) == lines[0]["probabilities"][0]
    assert rows[8]["problem"] == "there is no such file"


def test_demo(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from promptot.data import ImageTask
    from promptot.experiments import demo

    def fewer(load: Callable[[str], ImageTask]) -> Callable[[str], ImageTask]:
        def loaded(group: str) -> ImageTask:
            task = load(group)
            return replace(task, test=task.test[::20])

        return loaded

    for name in ("load_bundled", "load_bundled_others"):
        monkeypatch.setattr(demo, name, fewer(getattr(demo, name)))
    result = run(
        *("demo", "--out", tmp_path / "demo", "--set", "optim.epochs=1", "--set", "data.views=1"),
        *("--set", "data.shots=1", "--json", "-"),
    )
    assert result.code == 0
    assert [row["method"] for row in json.loads(result.out)["results"]] == [
        "Zero-shot",
        "IVLP",
        "Prompt-OT",
    ]
    assert "report.html" in result.err
    assert (tmp_path / "demo" / "report.html").is_file()


def test_demo_on_own_images(run, classes, clip_file: Path, tmp_path: Path) -> None:
    own = classes("own", labels=("blue", "green apple", "red", "sky"))
    result = run(
        *("demo", "--photos", own, "--out", tmp_path / "demo", "--json", "-"),
        *("--backbone", f"openai:{clip_file}", "--device", "cpu"),
        *("--set", "optim.epochs=1", "--set", "data.views=1", "--set", "data.shots=1"),
    )
    assert result.code == 0
    rows = json.loads(result.out)["results"]
    assert [row["method"] for row in rows] == ["Zero-shot", "IVLP", "Prompt-OT"]
    assert all(0 <= row[part] <= 1 for row in rows for part in ("base", "novel", "retention"))
    assert "Images of own that were not learnt from" in result.err
    assert "classes of the drawings inside the package" in result.err
    page = (tmp_path / "demo" / "report.html").read_text(encoding="utf-8")
    assert "Prompt-OT on own" in page
    assert "ships inside the package; the figures" not in page  # of another model
    assert run("demo", "--photos", "nowhere", "--out", tmp_path / "no").code == 1


def test_the_demo_needs_four_classes(run, classes, tmp_path: Path) -> None:
    few = run("demo", "--photos", classes("few"), "--out", "no")
    assert few.code == 1
    assert "3 classes, and half of them are held out: the demo needs 4 or more" in few.err
    assert not (tmp_path / "no").exists()


def test_benchmark(run, trained: Path, clip_file: Path) -> None:
    arguments = (
        *("benchmark", "few-shot", "--tasks", "photos", "--out", "bench", "--shots", "1,2"),
        *("--methods", "zero-shot,ivlp", "--seeds", "1", "--set", "optim.epochs=1"),
        *("--backbone", f"openai:{clip_file}", "--device", "cpu"),
    )
    result = run(*arguments, "--json", "-")
    assert result.code == 0
    found = json.loads(result.out)
    assert [method["method"] for method in found["methods"]] == ["zero-shot", "ivlp"]
    assert found["cells"] == 4
    assert "[4/4] photos, K = 2, seed 1, ivlp: test " in result.err
    shown = run(*arguments)
    assert "[4/4]" not in shown.err
    assert "Report: bench/report.html" in shown.out
    tables = shown.out.partition("Note:")[0].partition("Report:")[0]
    assert max(map(len, tables.splitlines())) <= 80
    for name in found["files"]:
        assert Path(name).is_file()


def test_benchmark_says_what_is_wrong(fails, trained: Path, clip_file: Path) -> None:
    def message(*arguments: str) -> str:
        return fails("benchmark", "few-shot", "--out", "bench", *arguments)

    assert "--seeds 'a,2' are not whole numbers" in message("--seeds", "a,2")
    assert "The seeds" in message("--seeds", "")
    assert "Did you mean 'animals'" in message("--tasks", "bundled:animal")
    assert "Did you mean 'ivlp'" in message("--methods", "ivpl")
    assert "do not match" in message("--methods", "ivlp[optim.lr=1")
    assert "'nowhere' does not exist" in message("--tasks", "nowhere")
    assert not Path("bench").exists()
    assert "lies in the image folder" in fails(
        "benchmark", "few-shot", "--out", "photos/bench", "--tasks", "photos"
    )
    Path("file").touch()
    assert "'file' is a file" in fails("benchmark", "few-shot", "--out", "file/bench")
    model = ("--backbone", f"openai:{clip_file}", "--device", "cpu")
    assert "No task is finished" in message("--tasks", "photos", "--report-only", *model)
    Path("bench").mkdir(exist_ok=True)
    Path("bench/results.jsonl").write_text("nonsense\n")
    assert "Line 1 of 'bench/results.jsonl'" in message("--tasks", "photos", *model)


class ClosedPipe(io.StringIO):
    """Standard output whose reader has gone."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")


def test_output_into_a_closed_pipe_is_no_traceback(
    run, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("sys.stdout", ClosedPipe())
        assert run("recipes").code == 1
        assert run("recipes", "--json", "-").code == 1
    assert run("recipes").code == 0
