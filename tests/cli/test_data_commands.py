"""`promptot data check`, `data shots` and `benchmark --suite`, as they are typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptot.cli.app import app
from promptot.errors import PromptotError


def run(*arguments: object) -> str:
    """Standard output and error of a command."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def refused(*arguments: object) -> PromptotError:
    with pytest.raises(PromptotError) as error:
        run(*arguments)
    return error.value


def test_check_of_an_empty_folder_says_where_everything_comes_from(tmp_path: Path) -> None:
    report = tmp_path / "report.json"
    error = refused("data", "check", "coop", "--root", tmp_path, "--json", report)
    assert error.problem == "15 of 15 data sets are not as published."
    found = json.loads(report.read_text())["sets"]
    assert {entry["state"] for entry in found} == {"missing"}
    assert all(source["url"] for entry in found for source in entry["missing"])


def test_check_of_one_data_set_with_checksums(public_data: Path, tmp_path: Path) -> None:
    sums = tmp_path / "sums"
    sums.write_text("0" * 64 + "  dtd/images/banded/image_0000.jpg\n")
    report = tmp_path / "report.json"
    error = refused(
        *("data", "check", "dtd", "--root", public_data),
        *("--checksums", sums, "--json", report),
    )
    assert error.problem == "1 of 1 data sets are not as published, and 1 checksums differ."
    found = json.loads(report.read_text())
    assert found["sets"][0]["state"] == "other counts"
    assert found["sets"][0]["images"] == {"train": 15, "validation": 6, "test": 9}
    assert "image_0000.jpg" in found["checksums"][0]


def test_shots_are_written_for_every_task_and_seed(public_data: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    tasks = ("--tasks", "dtd,sun397,imagenet-a")  # the last one has no training images
    said = run("data", "shots", "coop", "--root", public_data, "-o", out, "--shots", "1,2", *tasks)
    assert "12 lists" in said.replace("\n", " ")
    assert len(list(out.iterdir())) == 2 * 2 * 3
    assert (out / "SUN397-2-shots-seed-3.json").is_file()
    refused("data", "shots", "coop", "--root", public_data, "-o", out, "--seeds", "one")


@pytest.fixture
def suite(public_data: Path, smallest_clip: Path, tmp_path: Path) -> Callable[..., tuple]:
    def arguments(*more: object) -> tuple:
        return (
            *("benchmark", "--suite", "coop", "base-to-novel", "--root", public_data),
            *("--methods", "zero-shot,coop", "--seeds", 1, "--shots", 1, "--unverified"),
            *("--set", "optim.epochs=1", "--tasks", "dtd", "--out", tmp_path / "out"),
            *("--backbone", f"openai:{smallest_clip}", "--device", "cpu", *more),
        )

    return arguments


def test_an_estimate_runs_nothing(suite: Callable[..., tuple], tmp_path: Path) -> None:
    report = tmp_path / "cost.json"
    said = run(*suite("--estimate", "--json", report))
    assert "GiB of memory" in said
    found = json.loads(report.read_text())
    assert [method["cells"] for method in found["methods"]] == [1, 1]
    assert found["seconds"] > 0
    assert not (tmp_path / "out").exists()


def test_a_suite_from_the_shell(suite: Callable[..., tuple], tmp_path: Path) -> None:
    said = run(*suite())
    assert said.index("GiB of memory") < said.index("All tasks")  # the estimate comes first
    assert "DTD is not the published data set" in said.replace("\n", " ")
    assert (tmp_path / "out" / "report.html").is_file()
    assert "Nothing is missing" in run(*suite("--estimate"))
    error = refused(*[a for a in suite() if a != "--unverified"])
    assert "not complete" in error.problem
    assert "--unverified" in (error.fix or "")
