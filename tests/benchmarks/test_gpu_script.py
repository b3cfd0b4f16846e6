"""`benchmarks/gpu.py` runs from end to end without a GPU, so that one is not needed to debug it."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from promptot.errors import PromptotError

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu.py"


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    environ = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(SCRIPT), "--device", "cpu", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environ)


def test_every_part_runs_at_smoke_size(tmp_path: Path) -> None:
    done = run("--smoke", "--out", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    parts = {path.stem: json.loads(path.read_text()) for path in tmp_path.glob("*.json")}
    assert parts.keys() == {"tests", "step", "plans", "images", "fit", "profile"}
    assert parts["tests"]["rows"][0]["passed"] > 0
    rows = parts["step"]["rows"]
    assert {(row["precision"], row["classes"]) for row in rows} == {
        (precision, classes) for precision in ("fp32", "bf16") for classes in (3,)
    }
    for row in rows:
        assert row["same_bits"]
        assert all(row["replay_has_the_bits"])
        if row["precision"] == "fp32":
            assert row["differences"]["ours_plain"]["loss"] < 1e-5
            assert row["differences"]["ours_plain"]["gradient"] < 1e-4
    assert all(row["difference"] < 1e-5 for row in parts["images"]["rows"][:1])
    assert "| classes |" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "error"),
    [(("--only", "stepp"), SystemExit), (("--device", "cuda:99"), PromptotError)],
)
def test_bad_arguments_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, str], error: type
) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), "--out", str(tmp_path / "out"), *arguments])
    monkeypatch.syspath_prepend(SCRIPT.parent)
    with pytest.raises(error) as refused:
        runpy.run_path(str(SCRIPT), run_name="__main__")
    assert getattr(refused.value, "code", 1) != 0
    assert not list(tmp_path.rglob("*.json"))
