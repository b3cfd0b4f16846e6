"""Names and paths on a terminal: nothing in them is obeyed, wherever they are printed."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from pathlib import Path

import pytest
from PIL import Image

from promptot.files.csv_text import read_cell

ESCAPES = "\x1b]0;owned\x07\x9b31m\u202e"
OBEYED = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="such names are POSIX's")


@pytest.fixture
def hostile() -> Path:
    """An image whose name holds what a terminal obeys, below a folder whose name does."""
    path = Path(f"=dir{ESCAPES}") / f"=cat{ESCAPES}.png"
    path.parent.mkdir()
    Image.new("RGB", (32, 32), "red").save(path, "PNG")
    return path


@pytest.mark.parametrize("format_", ["csv", "jsonl", "table", "json"])
def test_predictions(run, trained: Path, hostile: Path, format_: str) -> None:
    unreadable = hostile.with_name(f"=bad{ESCAPES}.png")
    unreadable.write_bytes(b"no image")
    options = ("--json", "-") if format_ == "json" else ("--format", format_)
    names = f"=cat{ESCAPES},@moose"
    result = run("predict", "run", str(hostile), str(unreadable), "--classes", names, *options)
    assert not OBEYED.search(result.out + result.err)
    if format_ == "csv":
        rows = list(csv.reader(io.StringIO(result.out)))[1:]
        for row in rows:
            assert all(not cell.startswith(tuple("=+-@")) for cell in row)
        assert {read_cell(row[0]) for row in rows} == {f"{hostile}", f"{unreadable}"}
        assert {read_cell(row[2]) for row in rows} == {f"=cat{ESCAPES}", "@moose", ""}
    elif format_ == "jsonl":
        rows = [json.loads(line) for line in result.out.splitlines()]
        assert rows[0]["image"] == f"{hostile}"
    elif format_ == "json":
        assert json.loads(result.out)[0]["image"] == f"{hostile}"


@pytest.mark.parametrize(
    "arguments",
    [
        ("info", "{}"), ("info", "a", "{}"), ("recipes", "{}"), ("{}",), ("--{}",), ("fit", "--{}"),
        ("fit", "{}", "--out", "o"), ("fit", "photos", "--out", "o", "--shots", "{}"),
        ("fit", "photos", "--out", "o", "--json", "{}"), ("predict", "run", "{}x"),
        ("fit", "photos", "--out", "o", "--set", "{}"), ("serve", "{}"), ("evaluate", "run", "{}"),
        ("benchmark", "{}", "--out", "o"), ("fit", "photos", "--out", "o", "--backbone", "{}"),
        ("export", "{}", "--out", "o"), ("merge", "{}", "b", "--out", "o"),
        ("pull", "{}", "--out", "o"),
        ("data", "{}"), ("data", "check", "{}", "--root", "x"), ("tune", "{}", "--out", "o"),
        ("report", "{}"), ("predict", "run", "photos/*", "--format", "{}"),
    ],
)  # fmt: skip
def test_errors(run, trained: Path, hostile: Path, arguments: tuple[str, ...]) -> None:
    """An argument may be the name of a file, of a glob pattern's."""
    text = f"{hostile.parent}"
    result = run(*(argument.replace("{}", text) for argument in arguments))
    assert result.code != 0
    assert result.err
    assert not OBEYED.search(result.out + result.err), result.err


def test_names_of_a_task(run, trained: Path, quick: list[str]) -> None:
    """Class folders, an unreadable image and the run itself have such names."""
    for name in (f"=cat{ESCAPES}", f"@dog{ESCAPES}"):
        folder = Path(f"data{ESCAPES}") / name
        folder.mkdir(parents=True)
        for index in range(4):
            Image.new("RGB", (32, 32), (60 * index, 90, 30)).save(
                folder / f"{index}{ESCAPES}.png", "PNG"
            )
    (folder / f"bad{ESCAPES}.png").write_bytes(b"no image")
    data, out = f"data{ESCAPES}", f"-run{ESCAPES}"
    model = quick[:4]
    few = ("--shots", "1", "--set", "optim.epochs=1")
    for arguments in (
        ("data", data, *model),
        ("fit", data, f"--out={out}", *few, *model),
        ("evaluate", "--", out, data),
        ("report", "--", out),
        ("info", "--", out),
        ("benchmark", "base-to-novel", "--out", "b", "--tasks", data, "--methods", "zero-shot",
         "--seeds", "1", "--shots", "1", *model),
    ):  # fmt: skip
        result = run(*arguments)
        assert result.code == 0, result.err
        assert not OBEYED.search(result.out + result.err), (arguments, result)
    for path in (Path(out) / "predictions.csv", Path("b") / "tables.csv"):
        text = path.read_text(encoding="utf-8")
        assert not OBEYED.search(text)
        for row in csv.reader(text.splitlines()):
            assert not any(cell.startswith(tuple("=+@")) for cell in row)
    names = {
        read_cell(row["class_name"])
        for row in csv.DictReader((Path(out) / "predictions.csv").open(encoding="utf-8"))
    }
    assert {name[0] for name in names} == {"=", "@"}
