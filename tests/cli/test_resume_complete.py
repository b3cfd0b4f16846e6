"""A command that was carried out already says so, changes nothing and exits with 0."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import promptot

FIT = ("fit", "photos", "--out", "run")


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Of every file, its bytes and when it was written."""
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture
def own(
    run: Callable,
    classes: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quick: list[str],
) -> Path:
    """The working directory, with `photos` and a run on them that this very command made."""
    monkeypatch.chdir(tmp_path)
    classes("photos")
    result = run(*FIT, *quick, "--json", "first.json")
    assert result.code == 0, result
    return tmp_path


def test_a_complete_run_is_shown_again(run: Callable, own: Path, quick: list[str]) -> None:
    before = contents(own / "run")
    result = run(*FIT, *quick, "--resume", "--log", "tensorboard", "--json", "second.json")
    assert result.code == 0, result
    assert "The run in run is complete, and was made with these arguments" in result.out
    assert "Next: promptot predict" in result.out
    assert contents(own / "run") == before  # no tracker's files either
    first, second = (json.loads((own / f"{n}.json").read_text()) for n in ("first", "second"))
    assert (first.pop("was_complete"), second.pop("was_complete")) == (False, True)
    assert round(first.pop("seconds"), 3) == second.pop("seconds")
    assert second == first


def test_what_it_was_not_made_with_is_named(fails: Callable, own: Path, quick: list[str]) -> None:
    before = contents(own / "run")

    def problem(*arguments: str) -> str:
        return fails(*FIT, *quick, "--resume", *arguments)

    assert "is complete, and was made with something else: the seed" in problem("--seed", "2")
    assert "something else: the recipe or its values" in problem("--set", "optim.lr=0.5")
    assert "else: the classes, the training images" in problem("--classes", "base")
    assert contents(own / "run") == before


def test_other_images_are_other_training_images(
    fails: Callable, own: Path, quick: list[str], classes: Callable[..., Path]
) -> None:
    shutil.rmtree(own / "photos")
    classes("photos", images=5)
    assert "something else: the training images" in fails(*FIT, *quick, "--resume")


def test_a_run_that_does_not_note_what_made_it(
    fails: Callable, own: Path, quick: list[str]
) -> None:
    manifest = own / "run" / "manifest.json"
    noted = json.loads(manifest.read_text())
    del noted["made_with"]
    manifest.write_text(json.dumps(noted))
    assert "does not note all that it was made with. Use it" in fails(*FIT, *quick, "--resume")


def test_a_page_that_an_interruption_cost_is_written(
    run: Callable, own: Path, quick: list[str]
) -> None:
    with_page = [argument for argument in quick if argument != "--no-report"]
    before = contents(own / "run")
    assert run(*FIT, *with_page, "--resume").code == 0
    after = contents(own / "run")
    assert after.keys() - before.keys() == {"report.html"}
    assert {name: after[name] for name in before} == before
    assert run(*FIT, *with_page, "--resume").code == 0
    assert contents(own / "run") == after


def test_from_python_the_run_is_returned(own: Path, clip_file: Path) -> None:
    options = {"backbone": f"openai:{clip_file}", "device": "cpu", "shots": 2, "report": False}
    found = promptot.fit("photos", "run", overrides=["optim.epochs=1"], resume=True, **options)
    assert found.was_complete
    first = json.loads((own / "first.json").read_text())
    assert {name: scores.as_json() for name, scores in found.scores.items()} == first["results"]
    assert len(found.log.steps) > 0


def test_a_complete_benchmark_says_so(run: Callable, own: Path, clip_file: Path) -> None:
    command = (
        *("benchmark", "few-shot", "--tasks", "photos", "--out", "bench", "--shots", "1"),
        *("--seeds", "1", "--methods", "zero-shot", "--backbone", f"openai:{clip_file}"),
        *("--device", "cpu", "--json", "bench.json"),
    )
    first, second = run(*command), run(*command)
    assert first.code == second.code == 0, (first, second)
    assert "nothing was left to run" not in first.out
    assert "All 1 cells were in bench/results.jsonl already: nothing was left to run" in second.out
    assert json.loads((own / "bench.json").read_text())["ran"] == 0


def test_a_complete_tuning_says_so(
    run: Callable,
    own: Path,
    classes: Callable[..., Path],
    clip_file: Path,
) -> None:
    classes("many", images=14)
    command = (
        *("tune", "many", "--out", "tuning", "--budget", "1h", "--shots", "1", "--recipe", "coop"),
        *("--backbone", f"openai:{clip_file}", "--device", "cpu", "--set", "optim.epochs=1"),
    )
    first, second = run(*command), run(*command)
    assert first.code == second.code == 0, (first, second)
    assert "nothing was left to do" not in first.out
    assert "Everything had been tried already: nothing was left to do." in second.out
