"""Domain generalization on one's own folders: what is tested, what is said, what is kept."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from promptot.backbones import Backbone
from promptot.cli.app import app
from promptot.data.shot_lists import read_shot_list, shot_list_name
from promptot.errors import PromptotError
from promptot.experiments import PROTOCOLS, Benchmark, benchmark
from promptot.experiments.scenarios import Scenario, load_sources

QUICK = ("optim.epochs=1", "data.views=1")


def domains(tasks: list[str], split: str = "test") -> list[Scenario]:
    return PROTOCOLS["domain-generalization"].scenarios(load_sources(tasks), [], [2], split)


@pytest.fixture
def two(make_photos: Callable[..., Path]) -> list[str]:
    """Four classes of ten images, twice."""
    return [str(make_photos("photo", images=10)), str(make_photos("sketch", images=10))]


def test_all_images_of_a_target_and_the_source_s_own_test_images(two: list[str]) -> None:
    for scenario, other in zip(domains(two), ("sketch", "photo"), strict=True):
        assert list(scenario.parts) == ["source", f"domain/{other}"]
        target = scenario.parts[f"domain/{other}"].test
        assert len(target) == len({example.path for example in target}) == 40
        assert all(f"/{other}/" in example.path for example in target)
        assert len(scenario.parts["source"].test) == 12  # 30 % of each class
        learnt = {example.path for example in scenario.pool.train}
        assert not learnt & {e.path for part in scenario.parts.values() for e in part.test}


def test_a_target_with_splits_of_its_own_is_tested_whole(make_photos: Callable[..., Path]) -> None:
    photo = make_photos("photo", images=3, splits=("train", "test"))
    sketch = make_photos("sketch", images=3, splits=("train", "val", "test"))
    first, second = domains([str(photo), str(sketch)])
    assert len(first.parts["domain/sketch"].test) == 4 * 9
    assert len(first.parts["source"].test) == 4 * 3
    assert len(second.parts["domain/photo"].test) == 4 * 6


def test_a_source_without_test_images_has_no_column(make_photos: Callable[..., Path]) -> None:
    photo = make_photos("photo", images=3, splits=("train", "val"))
    sketch = make_photos("sketch", images=3)
    first, second = domains([str(photo), str(sketch)])
    assert list(first.parts) == ["domain/sketch"]
    assert list(second.parts) == ["source", "domain/photo"]


def test_validation_tests_no_test_image(two: list[str]) -> None:
    for chosen, reported in zip(domains(two, "validation"), domains(two), strict=True):
        assert list(chosen.parts) == list(reported.parts)
        assert {len(part.test) for part in chosen.parts.values()} == {8}  # 20 % of 40
        source = {example.path for example in reported.parts["source"].test}
        assert not source & {example.path for example in chosen.parts["source"].test}


def test_domains_of_one_table_are_tested_whole(
    make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    rows = ["path,label,domain"]
    for kind in ("photo", "sketch"):
        folder = make_photos(kind, images=10)
        rows += [
            f"{image.relative_to(tmp_path)},{image.parent.name},{kind}"
            for image in sorted(folder.rglob("*.png"))
        ]
    table = tmp_path / "pictures.csv"
    table.write_text("\n".join(rows) + "\n")
    first, second = domains([str(table)])
    assert list(first.parts) == ["source", "domain/pictures sketch"]
    whole = [first.parts["domain/pictures sketch"], second.parts["domain/pictures photo"]]
    assert [len(part.test) for part in whole] == [40, 40]
    # a table is divided class by class, over its domains together
    assert len(first.parts["source"].test) + len(second.parts["source"].test) == 24


@pytest.fixture
def bench(backbone: Backbone, two: list[str], tmp_path: Path) -> Callable[..., Benchmark]:
    def call(protocol: str = "domain-generalization", **more) -> Benchmark:
        arguments = {
            "methods": "zero-shot,ivlp",
            "tasks": two,
            "seeds": (1,),
            "shots": (2,),
            "overrides": QUICK,
            "backbone": backbone,
        }
        return benchmark(protocol, tmp_path / "out", **(arguments | more))

    return call


def test_the_caption_names_what_was_trained_on_and_what_was_tested(
    bench: Callable[..., Benchmark], two: list[str], tmp_path: Path
) -> None:
    found = bench(sources=two[:1])
    assert (found.summary.tasks, found.summary.tested) == (["photo"], ["sketch"])
    assert [m.label for m in found.summary.metrics] == ["Domains", "Source", "sketch"]
    for name in ("tables.md", "tables.tex", "report.html"):
        text = (tmp_path / "out" / name).read_text()
        assert "trained on photo, tested on sketch" in text
        assert "images of photo" not in text
    record = json.loads((tmp_path / "out" / "results.jsonl").read_text().splitlines()[0])
    assert record["parts"]["domain/sketch"]["images"] == 40
    assert record["parts"]["source"]["images"] == 12
    both = bench()
    assert (both.summary.tasks, both.summary.tested) == (["photo", "sketch"], ["sketch", "photo"])
    assert "### Trained on: sketch" in (tmp_path / "out" / "tables.md").read_text()


def test_the_caption_of_cross_dataset(bench: Callable[..., Benchmark], two: list[str]) -> None:
    found = bench("cross-dataset", sources=two[1:])
    assert (found.summary.tasks, found.summary.tested) == (["sketch"], ["photo"])
    same = bench("base-to-novel")
    assert same.summary.tested == ()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folders_leave_shot_lists(
    bench: Callable[..., Benchmark], two: list[str], tmp_path: Path, protocol: str
) -> None:
    bench(protocol, methods="ivlp")
    names = {path.name for path in (tmp_path / "out" / "shots").iterdir()}
    assert names == {shot_list_name(name, 2, 1) for name in ("photo", "sketch")}
    kept = read_shot_list(tmp_path / "out" / "shots" / shot_list_name("photo", 2, 1))
    assert len(kept.train) == 8
    for row in kept.train:
        assert not Path(row.path).is_absolute()
        assert (Path(two[0]) / row.path).is_file()
        assert Path(row.path).parent.name == row.name.replace(" ", "_")
    records = [
        json.loads(line) for line in (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    ]
    (record,) = [r for r in records if r["task"] == "photo"]
    assert record["shot_list"] == kept.digest


def test_drawings_and_odd_names_leave_shot_lists(backbone: Backbone, tmp_path: Path) -> None:
    benchmark(
        "few-shot",
        tmp_path,
        methods="zero-shot",
        tasks=["bundled:food"],
        seeds=(1,),
        shots=(1,),
        backbone=backbone,
    )
    (path,) = (tmp_path / "shots").iterdir()
    assert all(row.path.startswith("images.zip::") for row in read_shot_list(path).train)
    assert shot_list_name("a/b: ..\\c", 1, 2) == "a-b- ..-c-1-shots-seed-2.json"


def test_shares_of_one_s_own(bench: Callable[..., Benchmark], two: list[str]) -> None:
    parts = PROTOCOLS["few-shot"].scenarios(load_sources(two, (0.6, 0.0, 0.4)), [], [2], "test")
    assert [len(scenario.parts["test"].test) for scenario in parts] == [16, 16]
    assert [len(scenario.pool.train) for scenario in parts] == [24, 24]
    found = bench("few-shot", methods="zero-shot", split_shares=(0.4, 0.1, 0.5))
    assert found.cells == 2
    with pytest.raises(PromptotError, match=r"The split .* is not possible"):
        bench("few-shot", split_shares=(0.5, 0.5, 0.5))
    with pytest.raises(PromptotError, match="has its own splits"):
        bench("few-shot", suite="coop", root=".", tasks=(), split_shares=(0.4, 0.1, 0.5))


def test_shares_are_typed(two: list[str], tmp_path: Path, clip_file: Path) -> None:
    def run(*more: str) -> str:
        command = ["benchmark", "few-shot", "--tasks", two[0], "--out", str(tmp_path / "out")]
        command += ["--methods", "zero-shot", "--seeds", "1", "--shots", "1", *more]
        command += ["--backbone", f"openai:{clip_file}", "--device", "cpu"]
        result = CliRunner().invoke(app, command, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    with pytest.raises(PromptotError, match="are not three shares"):
        run("--split-shares", "0.5,0.5")
    with pytest.raises(PromptotError, match="are not numbers"):
        run("--split-shares", "a,b,c")
    run("--split-shares", "0.4,0.1,0.5")
    record = json.loads((tmp_path / "out" / "results.jsonl").read_text())
    assert record["parts"]["test"]["images"] == 20
