"""Files that would wait, grow or crash, on the command line: one sentence and exit code 1."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

Fails = Callable[..., str]
FIT = ("fit", "photos", "--out", "out")
DEEP = "[" * 3000
needs_pipes = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes")


@needs_pipes
@pytest.mark.parametrize("name", ["names.json", "names.txt", "recipe.yaml", "photos.csv"])
@pytest.mark.parametrize("device", [False, True])
def test_pipes_and_devices(fails: Fails, trained: Path, name: str, device: bool) -> None:
    if device:
        Path(name).symlink_to("/dev/zero")
    else:
        os.mkfifo(name)
    if name == "photos.csv":
        message = fails("fit", name, "--out", "out")
    else:
        option = "--recipe" if name == "recipe.yaml" else "--names"
        message = fails(*FIT, option, name)
    assert "it is a pipe or a device, not a file; save what it gives to a file first" in message
    assert not Path("out").exists()


@needs_pipes
def test_a_manifest_and_predictions_that_are_pipes(fails: Fails, trained: Path) -> None:
    for name in ("predictions.csv", "manifest.json"):
        Path("run", name).unlink()
        os.mkfifo(f"run/{name}")
        assert "it is a pipe or a device" in fails("report", "run")
    assert "manifest.json' is damaged" in fails("evaluate", "run", "photos")


@pytest.mark.parametrize("value", [DEEP, "9" * 5000, "2024-02-30", "&a [*a]", "- " * 2000 + "x"])
def test_overrides(fails: Fails, trained: Path, value: str) -> None:
    message = fails(*FIT, "--set", f"optim.lr={value}")
    assert "The value of 'optim.lr' is" in message
    assert len(message) < 300


def test_a_recipe_that_is_a_bomb(fails: Fails, trained: Path) -> None:
    steps = zip("abcdefghi", "bcdefghij", strict=True)
    lines = [f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]" for a, b in steps]
    Path("bomb.yaml").write_text("\n".join(["a: &a [x, x]", *lines]))
    for arguments in ((*FIT, "--recipe", "bomb.yaml"), (*FIT, "--names", "bomb.yaml"),
                      ("fit", "bomb.yaml", "--out", "out"), ("recipes", "bomb.yaml")):  # fmt: skip
        message = fails(*arguments)
        assert "anchors and aliases (&x, *x) are not read" in message
        assert len(message) < 900


def test_a_manifest_of_another_shape(fails: Fails, trained: Path) -> None:
    path = Path("run/manifest.json")
    manifest = json.loads(path.read_text())
    manifest["results"]["seconds"] = "long"
    path.write_text(json.dumps(manifest))
    assert "(results.seconds is not as `fit` writes it)" in fails("report", "run")
    path.write_text('{"task": ' * 2000 + "1" + "}" * 2000)
    assert "nested deeper" in fails("report", "run")
    assert "manifest.json' is damaged" in fails("evaluate", "run", "photos")


def test_descriptions_that_name_each_other(fails: Fails, trained: Path) -> None:
    Path("a.yaml").write_text("data: b.yaml\n")
    Path("b.yaml").write_text("data: a.yaml\n")
    assert "names itself, through others" in fails("fit", "a.yaml", "--out", "out")


def test_results_of_another_shape(fails: Fails, trained: Path, quick: list[str]) -> None:
    Path("out").mkdir()
    Path("out/results.jsonl").write_text('{"cell": "x", "parts": {"base": 3}}\n')
    arguments = ("benchmark", "base-to-novel", "--out", "out", "--tasks", "photos")
    assert "Line 1 of 'out/results.jsonl' is not a result" in fails(*arguments, "--report-only")
    Path("out/results.jsonl").write_text(f"{DEEP}\n")
    assert "nested deeper" in fails(*arguments, "--report-only")
