from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Command = Callable[..., Any]


@pytest.fixture
def model(quick: list[str]) -> list[str]:
    return quick[:4]


def test_data_is_short_for_data_describe(
    run: Command, trained: Path, model: list[str], tmp_path: Path
) -> None:
    (trained / "photos" / "red" / "bad.png").write_text("notes")
    results = [
        run("data", *words, "photos", *model, "--json", tmp_path / "d.json")
        for words in ((), ("describe",))
    ]
    assert [result.code for result in results] == [0, 0]
    assert results[0].out == results[1].out
    out = results[0].out
    for part in ("3 classes, 12 images", "green apple", "zero-shot", "--shots 2", "bad.png"):
        assert part in out
    assert "Next: promptot fit photos --out runs/photos --shots 2" in out
    assert max(len(line) for line in out.splitlines() if "Next" not in line) <= 80
    found = json.loads((tmp_path / "d.json").read_text())
    assert found["images"] == {"train": 9, "validation": 0, "test": 3}
    assert [Path(item["path"]).name for item in found["skipped"]] == ["bad.png"]


def test_options_may_come_first(run: Command, trained: Path, model: list[str]) -> None:
    result = run("data", "--json", "-", *model, "photos")
    assert result.code == 0
    assert json.loads(result.out)["name"] == "photos"
    assert "3 classes" in result.err


def test_help_and_mistakes(run: Command, trained: Path) -> None:
    assert "describe" in run("data", "--help").out
    wrong = run("data", "no-such-place")
    assert wrong.code == 1
    assert "does not exist" in wrong.err


def test_names_with_markup_are_printed_as_they_are(
    run: Command, trained: Path, model: list[str]
) -> None:
    (trained / "photos" / "red").rename(trained / "photos" / "[red] [bold]x")
    result = run("data", "photos", *model)
    assert result.code == 0
    assert "[red] [bold]x" in result.out


def test_every_format_from_the_shell(
    run: Command, trained: Path, quick: list[str], tmp_path: Path
) -> None:
    import shutil

    shutil.make_archive(str(trained / "packed"), "zip", trained, "photos")
    (trained / "names.csv").write_text("red,ruby,scarlet\n")
    rows = [f"{p.relative_to(trained)},{p.parent.name}" for p in trained.glob("photos/*/*.png")]
    (trained / "table.csv").write_text("\n".join(["path,label", *rows]))
    (trained / "task.yaml").write_text("data: table.csv\ntemplate: 'a {} square.'\n")
    for number, data in enumerate(("packed.zip", "table.csv", "task.yaml")):
        out = trained / f"run{number}"
        fitted = run("fit", data, "--out", out, "--names", "names.csv", *quick)
        assert fitted.code == 0, fitted.err
        image = fitted.out.split("Next: promptot predict ")[1].split()[1].strip("'")
        assert run("predict", out, image, "--classes", "cat|kitten,ruby").code == 0
        tested = run("evaluate", out, data, "--names", "names.csv", *quick[:4])
        assert "Left out because the run was trained on them: 6 images" in tested.out
    card = json.loads((trained / "run2" / "adapter" / "card.json").read_text())
    assert card["template"] == "a {} square."
    assert card["synonyms"] == {"ruby": ["scarlet"]}


def test_domains_of_one_table_are_compared(run: Command, trained: Path, quick: list[str]) -> None:
    splits = ["train", "train", "test", "test"]
    both = [
        f"{p.relative_to(trained)},{p.parent.name},{domain},{split}"
        for domain in ("photo", "sketch")
        for p, split in zip(sorted(trained.glob("photos/*/*.png")), splits * 3, strict=True)
    ]
    (trained / "table.csv").write_text("\n".join(["path,label,domain,split", *both]))
    options = ["--methods", "zero-shot", "--seeds", "1", "--shots", "1", *quick[:4]]
    arguments = ["domain-generalization", "--tasks", "table.csv", "--out", "bench", *options]
    result = run("benchmark", *arguments, "--json", "bench.json")
    assert result.code == 0, result.err
    lines = (trained / "bench" / "results.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["task"] for record in records] == ["table photo", "table sketch"]
    assert list(records[0]["parts"]) == ["source", "domain/table sketch"]
    images = {name: part["images"] for name, part in records[0]["parts"].items()}
    assert images == {"source": 6, "domain/table sketch": 12}  # of a target, all

    scored = run("evaluate", "run", "table.csv", *quick[:4], "--json", "-")
    assert {"domain photo", "domain sketch"} <= set(json.loads(scored.out)["results"])
