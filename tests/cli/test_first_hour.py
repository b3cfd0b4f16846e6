"""What a newcomer reads with photographs of their own and the model inside the package."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptot.backbones.first_choice import FIRST_CHOICE

Command = Callable[..., Any]
OPTION = f"--backbone {FIRST_CHOICE.name}"


@pytest.fixture
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("promptot.runs.evaluating.OTHER_DRAWINGS", 8)


def lines_with(text: str, part: str) -> list[str]:
    return [line for line in text.splitlines() if part in line]


def test_data_shows_a_probe_and_says_once_what_a_real_clip_would_be(
    run: Command, trained: Path
) -> None:
    result = run("data", "photos", "--test-share", "0.5", "--device", "cpu", "--json", "found.json")
    assert result.code == 0, result.err
    (line,) = lines_with(result.out, OPTION)
    assert f"promptot data photos {OPTION} --test-share 0.5 --device cpu" in line
    assert FIRST_CHOICE.size in line
    assert "linear probe  " in result.out
    found = json.loads((trained / "found.json").read_text())
    assert OPTION in found["real_clip"]
    assert set(found["probe"]) == {"accuracy", "interval", "images", "most_of_a_class", "capped"}
    assert found["probe"]["images"] == found["images"]["train"] == 6
    assert f"of {found['probe']['images']} training images" in " ".join(result.out.split())


def test_data_says_nothing_of_it_for_drawings_or_another_model(
    run: Command, trained: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run("data", "photos", *quick[:4])
    assert FIRST_CHOICE.name not in result.out + result.err
    from dataclasses import replace

    from promptot.data.readers import any_source as load

    whole = load.load_bundled("food")
    few = replace(whole.select(range(3)), validation=())
    monkeypatch.setattr(load, "load_bundled", lambda group: few)
    result = run("data", "bundled:food", "--device", "cpu")
    assert result.code == 0, result.err
    assert "linear probe" in result.out
    assert FIRST_CHOICE.name not in result.out + result.err


def test_fit_says_it_once_with_the_command_as_it_was_typed(
    run: Command, trained: Path, few_drawings: None
) -> None:
    typed = ["--recipe", "zero-shot", "--seed", "3", "--set", "data.template=a {}.", "--classes",
             "base", "--device", "cpu", "--no-report", "--json", "-", "--overwrite"]  # fmt: skip
    result = run("fit", "photos", "--out", "runs/a b", *typed)
    assert result.code == 0, result.err
    (line,) = lines_with(result.err, OPTION)  # with --json - what is for people goes there
    assert FIRST_CHOICE.name not in result.out
    start, end = line.index("promptot fit"), line.index(" (a download")
    words = shlex.split(line[start:end])
    assert words[:3] == ["promptot", "fit", "photos"]
    again = dict(zip(words[3::2], words[4::2], strict=False))
    assert again["--out"] == "runs/a b-vit-b-16"
    assert again["--backbone"] == FIRST_CHOICE.name
    assert again["--set"] == "data.template=a {}."
    assert (again["--seed"], again["--classes"], again["--recipe"]) == ("3", "base", "zero-shot")
    assert "--no-report" in words
    assert not {"--json", "--overwrite", "--resume", "--shots"} & set(words)


def test_fit_says_nothing_of_it_with_another_model(
    run: Command, trained: Path, quick: list[str]
) -> None:
    result = run("fit", "photos", "--out", "other", *quick)
    assert result.code == 0, result.err
    assert FIRST_CHOICE.name not in result.out + result.err


def test_retention_of_a_model_that_is_mostly_wrong_is_doubted_first(
    run: Command, trained: Path, few_drawings: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("promptot.evaluation.retention.MOSTLY_WRONG", 1.01)  # whoever is asked
    result = run("fit", "photos", "--out", "b", "--recipe", "zero-shot", "--device", "cpu",
                 "--no-report")  # fmt: skip
    assert result.code == 0, result.err
    assert "retention says little here" in result.out
    assert result.out.index("retention says little") < result.out.index("Retention")
    monkeypatch.setattr("promptot.evaluation.retention.MOSTLY_WRONG", 0.0)
    result = run("fit", "photos", "--out", "c", "--recipe", "zero-shot", "--device", "cpu",
                 "--no-report")  # fmt: skip
    assert "retention says little" not in result.out


def test_what_no_step_sees_is_said_before_training(
    run: Command, trained: Path, quick: list[str]
) -> None:
    one_shot = ["--set", "data.shots=1", "--set", "optim.epochs=1", "--set", "optim.batch_size=2"]
    result = run("fit", "photos", "--out", "d", *quick[:4], *one_shot, "--no-report")
    assert result.code == 0, result.err
    (line,) = lines_with(result.err, "Each epoch leaves out 1 of 3 images")
    unseen = [name for name in ("blue", "green apple", "red") if f"'{name}'" in line]
    assert len(unseen) == 1
    assert f"No epoch sees an image of '{unseen[0]}'." in line
    assert f"photos/{unseen[0].replace(' ', '_')}/" in line
    assert result.err.index("Each epoch leaves out") < result.err.index("epoch 1 of 1")
    every = [*one_shot, "--set", "optim.drop_last=false"]
    result = run("fit", "photos", "--out", "e", *quick[:4], *every, "--no-report")
    assert "leaves out" not in result.err


def test_names_that_are_one_text_to_the_model_are_named_by_data_and_fit(
    run: Command, trained: Path, quick: list[str]
) -> None:
    names = {"red": ["fish &amp; chips"], "blue": ["fish & chips"]}
    (trained / "names.json").write_text(json.dumps(names))
    for arguments in (
        ["data", "photos", *quick[:4]],
        ["fit", "photos", "--out", "f", *quick],
    ):
        result = run(*arguments, "--names", "names.json")
        assert result.code == 0, result.err
        said = " ".join((result.out + result.err).split())
        assert said.count("'fish & chips' and 'fish &amp; chips' are the same text") == 1
