"""Suites of public data sets: what runs, what is refused, what is shared, what is published."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from promptot.backbones import Backbone, load_backbone
from promptot.data.catalog.public import load_public
from promptot.data.shot_lists import read_shot_list, shot_list_name, write_shot_list
from promptot.errors import PromptotError
from promptot.experiments import Benchmark, BenchmarkListener, benchmark
from promptot.experiments.benchmarking import forecast_benchmark
from promptot.experiments.cell_record import CellRecord
from promptot.experiments.executor import SerialExecutor
from promptot.experiments.methods import Method
from promptot.experiments.store import FolderStore
from promptot.experiments.suite import load_suite, named_sets
from promptot.recipes import list_recipes
from promptot.runs.learning import adapt

QUICK = ("optim.epochs=1", "vocabulary.per_step=4")
Bench = Callable[..., Benchmark]


@pytest.fixture(scope="module")
def smallest(smallest_clip: Path) -> Backbone:
    return load_backbone(f"openai:{smallest_clip}")


@pytest.fixture
def quick(tmp_path: Path) -> tuple[str, ...]:
    """One epoch, and few anchor words."""
    words = tmp_path / "words.txt"
    words.write_text("apple\nchair\ncloud\nriver\nstone\n")
    return (*QUICK, f"vocabulary.words={words}")


@pytest.fixture
def bench(
    smallest: Backbone, public_data: Path, tmp_path: Path, quick: tuple[str, ...]
) -> Callable[..., Benchmark]:
    """Run the suite on the made data into `tmp_path / out`, unless told otherwise."""

    def call(protocol: str = "base-to-novel", out: str = "out", **more: Any) -> Benchmark:
        arguments: dict[str, Any] = {
            "methods": "zero-shot,prompt-ot",
            "suite": "coop",
            "root": public_data,
            "unverified": True,
            "seeds": (1, 2),
            "shots": (1,),
            "overrides": quick,
            "backbone": smallest,
        }
        return benchmark(protocol, tmp_path / out, **(arguments | more))

    return call


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "results.jsonl").read_text().splitlines()]


def answers(folder: Path) -> dict[str, Any]:
    """Cell -> what was found, without what may differ from run to run."""
    return {line["cell"]: line["parts"] for line in lines(folder)}


PROTOCOLS = ("base-to-novel", "cross-dataset", "domain-generalization")
CELLS = {"base-to-novel": 11, "cross-dataset": 1, "domain-generalization": 1}
PARTS = {"base-to-novel": 2, "cross-dataset": 11, "domain-generalization": 5}


def dry_run(bench: Bench, tmp_path: Path, methods: list[str], seeds: tuple[int, ...]) -> None:
    """All three settings, all data sets; every cell is in its tables."""
    for protocol in PROTOCOLS:
        found = bench(protocol, protocol, methods=",".join(methods), seeds=seeds, cache=tmp_path)
        assert found.problems == []
        written = lines(tmp_path / protocol)
        assert found.cells == len(written) == CELLS[protocol] * len(methods) * len(seeds)
        specific = {"linear-probe", "coop-class-specific"}
        for line in written:
            if line["method"] not in specific:
                assert len(line["parts"]) == PARTS[protocol]
            assert line["versions"]["torch"]
            assert re.fullmatch("[0-9a-f]{64}", line["shot_list"])
        tables = (tmp_path / protocol / "tables.md").read_text()
        for method in methods:
            (row,) = re.findall(rf"^\| {method} \| .*$", tables.split("###")[1], re.M)
            if method not in specific:
                assert "–" not in row.replace("±", "")
        assert "<svg" in (tmp_path / protocol / "report.html").read_text()
        listed = {path.name for path in (tmp_path / protocol / "shots").iterdir()}
        assert len(listed) == CELLS[protocol] * len(seeds)


def test_dry_run_of_all_data_sets_and_settings(bench: Bench, tmp_path: Path) -> None:
    """All 15 data sets × 3 settings, with one method of each kind.

    The grid of all methods is `test_the_whole_grid`, which takes most of a minute.
    """
    methods = ["zero-shot", "linear-probe", "prompt-ot", "promptsrc"]
    dry_run(bench, tmp_path, methods, (1,))


def test_every_method_runs_in_a_setting_with_a_source(bench: Bench, tmp_path: Path) -> None:
    found = bench("domain-generalization", methods=",".join(list_recipes()), seeds=(1,))
    assert found.problems == []
    assert found.cells == len(list_recipes())
    keys = [metric.key for metric in found.summary.metrics]
    assert keys[:2] == ["domains", "source"]
    assert "domain/ImageNet-A" in keys
    (first,) = [line for line in lines(tmp_path / "out") if line["method"] == "zero-shot"]
    assert {name: part["classes"] for name, part in first["parts"].items()} == {
        "source": 3,
        "domain/ImageNetV2": 3,
        "domain/ImageNet-Sketch": 3,
        "domain/ImageNet-A": 2,
        "domain/ImageNet-R": 2,
    }


@pytest.mark.slow
def test_the_whole_grid(bench: Bench, tmp_path: Path) -> None:
    """15 data sets × 3 settings × 3 seeds × every method: 858 cells."""
    dry_run(bench, tmp_path, list_recipes(), (1, 2, 3))


def test_published_figures_stand_beside_own_ones(bench: Bench, tmp_path: Path) -> None:
    found = bench(methods="zero-shot,prompt-ot,kgcoop", seeds=(1,))
    assert found.summary.published.keys() == {"zero-shot", "kgcoop"}  # prompt-ot has none
    tables = (tmp_path / "out" / "tables.md").read_text()
    table = tables.partition("### Beside the published averages")[2].partition("###")[0]
    own = found.summary.methods[0].figures["harmonic_mean"].mean
    (row,) = re.findall(r"^\| zero-shot \|.*$", table, re.M)
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[2] == "69.34"
    assert cells[-3:-1] == [f"{100 * own:.1f}", "71.70"]
    gap = float(cells[-1].replace("−", "-"))
    assert gap == pytest.approx(100 * own - 71.70, abs=0.051)
    assert "ViT-B/16" in table
    assert {"harmonic_mean", "average_harmonic_mean"} <= set(found.summary.methods[0].figures)
    part = bench(methods="zero-shot", seeds=(1,), tasks=("dtd", "eurosat"), out="part")
    assert not part.summary.published  # an average over other tasks
    assert part.summary.tasks == ["DTD", "EuroSAT"]
    assert any("DTD is not the published data set" in note for note in found.summary.notes)


def test_nothing_runs_unless_everything_can(
    bench: Bench, public_data: Path, tmp_path: Path
) -> None:
    with pytest.raises(PromptotError, match=r"ImageNet: 3 classes; published: 1000.*Caltech101"):
        bench(unverified=False)
    root = tmp_path / "data"
    shutil.copytree(public_data, root)
    shutil.rmtree(root / "dtd")
    (root / "ucf101" / "split_zhou_UCF101.json").write_text("{")
    with pytest.raises(PromptotError, match="DTD: there is no folder.*not JSON") as error:
        bench(root=root)
    assert "promptot data check coop" in str(error.value)
    shutil.rmtree(root / "imagenet-adversarial")
    with pytest.raises(PromptotError, match="ImageNet-A"):
        bench("domain-generalization", root=root)
    assert not (tmp_path / "out").exists()
    assert bench(root=root, tasks=("eurosat",), seeds=(1,)).cells == 2


@pytest.mark.parametrize(
    ("more", "complaint"),
    [
        ({"suite": "cop"}, "Did you mean 'coop'"),
        ({"root": None}, "Say with --root"),
        ({"suite": None}, "belong to a suite"),
        ({"sources": ("dtd",)}, "has its own source"),
        ({"tasks": ("imagenet-a",)}, "takes no part in base-to-novel"),
        ({"tasks": ("fod",)}, "Did you mean"),
        ({"shot_lists": "nowhere"}, "no folder of shot lists"),
        ({"jobs": 2}, "each process loads its own"),
        ({"split": "validation"}, "has no validation images"),
    ],
)
def test_wrong_arguments_cost_nothing(
    bench: Bench, tmp_path: Path, more: dict, complaint: str
) -> None:
    with pytest.raises(PromptotError, match=complaint):
        bench(**more)
    assert not (tmp_path / "out").exists()


def test_a_model_is_trained_once_and_tested_everywhere(
    bench: Bench, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    trained = []
    executor = watched(lambda *a, **m: trained.append((a[2].name, m["seed"])) or adapt(*a, **m))
    bench = partial(bench, executor=executor)
    methods = "prompt-ot,maple,linear-probe"
    bench("cross-dataset", methods=methods, cache=tmp_path / "cache")
    assert len(trained) == 6
    bench("domain-generalization", "domains", methods=methods, cache=tmp_path / "cache")
    # MaPLe has other settings there, so it is another model
    bench("few-shot", "few", methods=methods, cache=tmp_path / "cache", tasks=("imagenet",))
    assert len(trained) == 8
    alone = bench("domain-generalization", "alone", methods=methods, cache=tmp_path / "other")
    assert len(trained) == 14
    assert answers(tmp_path / "domains") == answers(tmp_path / "alone")
    for card in (tmp_path / "cache" / "adapters").glob("*/card.json"):
        card.write_text("{")
    again = bench("domain-generalization", "again", methods=methods, cache=tmp_path / "cache")
    assert len(trained) == 20
    figures = [[m.figures["domains"].mean for m in b.summary.methods] for b in (alone, again)]
    assert figures[0] == figures[1]


def test_frozen_features_of_test_images_are_computed_once(
    bench: Bench, smallest: Backbone, tmp_path: Path
) -> None:
    read: list[int] = []  # the images of each part that is computed, all in one batch

    def progress(what: str, done: int, total: int) -> None:
        if what.startswith("reading"):
            read.append(done)

    listener = BenchmarkListener(on_progress=progress)
    bench(methods="zero-shot,coop,kgcoop,linear-probe", tasks=("dtd", "eurosat"), listener=listener)
    assert sum(read) == 18  # nine test images of each
    bench("cross-dataset", "cross", methods="zero-shot", cache=tmp_path / "out" / "cache",
          tasks=("dtd", "eurosat"), listener=listener)  # fmt: skip
    assert sum(read) == 18 + 6  # ImageNet is new


def test_published_settings_of_a_setting_and_own_ones() -> None:
    suite = load_suite("coop")

    def at(protocol: str, text: str) -> Method:
        (method,) = suite.methods(protocol, text, [])
        return method.at("ImageNet", 16)

    cross = at("cross-dataset", "promptsrc")
    assert cross.recipe.prompts.text_depth == cross.recipe.prompts.vision_depth == 3
    assert (cross.recipe.ensembling.mean, cross.recipe.ensembling.sd) == (6, 10)
    own = at("cross-dataset", "promptsrc[prompts.text_depth=5]")
    assert own.recipe.prompts.text_depth == 5
    few = at("few-shot", "promptsrc")
    assert few.recipe.optim.epochs == 50
    base = at("base-to-novel", "promptsrc")
    assert base.recipe.prompts.text_depth == 9
    assert not base.own_template


def test_zero_shot_reads_each_data_set_s_own_sentence(bench: Bench, smallest_clip: Path) -> None:
    asked = set()

    class Noting(Backbone):
        def frozen_text(self, names, templates, *more):
            asked.add((next(iter(names)), tuple(templates)))
            return super().frozen_text(names, templates, *more)

    loaded = load_backbone(f"openai:{smallest_clip}")
    towers = loaded.image_tower, loaded.text_tower
    noting = Noting(loaded.name, *towers, loaded.logit_scale, loaded.tokenizer, loaded.preprocess)
    bench("cross-dataset", methods="zero-shot", seeds=(1,), tasks=("dtd", "oxford_pets"),
          backbone=noting)  # fmt: skip
    assert ("banded", ("{} texture.",)) in asked
    assert ("abyssinian", ("a photo of a {}, a type of pet.",)) in asked
    assert ("tench", ("a photo of a {}.",)) in asked
    asked.clear()
    bench(methods="prompt-ot", seeds=(1,), tasks=("dtd",), out="ot", backbone=noting)
    assert {templates for _, templates in asked} == {("a photo of a {}.",)}


def test_a_published_list_is_replayed(bench: Bench, public_data: Path, tmp_path: Path) -> None:
    bench(methods="prompt-ot", seeds=(1, 2), tasks=("dtd",))
    (seed_1, seed_2) = (shot_list_name("DTD", 1, seed) for seed in (1, 2))
    kept = tmp_path / "out" / "shots"
    dtd = load_public("dtd", public_data)
    drawn = read_shot_list(kept / seed_2)
    assert [row.path for row in drawn.train] == [
        e.path.removeprefix(f"{dtd.place}/") for e in dtd.task.few_shot(1, 2).train
    ]
    theirs = tmp_path / "theirs"
    write_shot_list(drawn, theirs / seed_1)  # seed 1 with the images of seed 2
    found = bench(
        methods="prompt-ot", seeds=(1, 2), tasks=("dtd",), shot_lists=theirs, out="replayed"
    )
    first, second = lines(tmp_path / "replayed")
    assert first["shot_list"] == second["shot_list"] == lines(tmp_path / "out")[1]["shot_list"]
    assert any("no list for seed 2" in note for note in found.summary.notes)
    assert first["cell"] != lines(tmp_path / "out")[0]["cell"]
    assert second["cell"] == lines(tmp_path / "out")[1]["cell"]


def test_a_forecast_counts_what_is_missing(
    bench: Bench, smallest: Backbone, public_data: Path, tmp_path: Path, quick: tuple[str, ...]
) -> None:
    told = []
    bench(
        methods="zero-shot,coop,ivlp",
        tasks=("dtd",),
        listener=BenchmarkListener(on_forecast=told.append),
    )
    (forecast,) = told
    assert [(m.label, m.cells) for m in forecast.methods] == [
        ("zero-shot", 2),
        ("coop", 2),
        ("ivlp", 2),
    ]
    assert forecast.methods[0].steps == 0
    assert forecast.methods[2].steps == 2  # one step an epoch, two seeds
    assert forecast.methods[1].testing_seconds == 0 < forecast.methods[2].testing_seconds
    assert forecast.memory_bytes > 0
    assert forecast.disk_bytes == 9 * smallest.embed_dim * 4
    more = forecast_benchmark(
        "base-to-novel",
        tmp_path / "out",
        backbone=smallest,
        methods="zero-shot,coop,ivlp",
        tasks=("dtd",),
        suite="coop",
        root=public_data,
        unverified=True,
        seeds=(1, 2, 3),
        shots=(1,),
        overrides=quick,
    )
    assert [method.cells for method in more.methods] == [1, 1, 1]
    assert len(lines(tmp_path / "out")) == 6


def test_a_claim_is_one_holder_s(tmp_path: Path) -> None:
    file = tmp_path / "results.jsonl"
    one, other = FolderStore(file, tmp_path / "claims"), FolderStore(file, tmp_path / "claims")
    with one.claim("a" * 64) as mine, other.claim("a" * 64) as theirs, other.claim("b" * 64) as b:
        assert (mine, theirs, b) == (True, False, True)
    with other.claim("a" * 64) as theirs:
        assert theirs
    assert list((tmp_path / "claims").iterdir()) == []
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(PromptotError, match="Choose another --out"),
        FolderStore(file, tmp_path / "file" / "claims").claim("a"),
    ):
        pass


def test_cells_run_in_any_order_and_only_once(bench: Bench, tmp_path: Path) -> None:
    """A second process is played by a call in the middle of the first one."""

    class FromTheMiddle(SerialExecutor):
        def map(self, work: Any, tasks: Any) -> Any:
            start = int(0.6 * len(tasks))
            return super().map(work, [*tasks[start:], *tasks[:start]])

    arguments = {"tasks": ("dtd", "eurosat"), "methods": "prompt-ot,ivlp"}
    bench(**arguments, out="whole")
    told = []

    def in_the_middle(record: CellRecord, done: int, total: int) -> None:
        told.append((done, total))
        if len(told) == 2:
            bench(**arguments)

    bench(**arguments, listener=BenchmarkListener(on_cell=in_the_middle), executor=FromTheMiddle())
    assert len(told) == 2  # the call in the middle ran all the rest
    written = lines(tmp_path / "out")
    assert len(written) == len({line["cell"] for line in written}) == 8
    assert written[0]["task"] == "EuroSAT"
    assert answers(tmp_path / "out") == answers(tmp_path / "whole")


def test_jobs_share_the_cells(bench: Bench, smallest_clip: Path, tmp_path: Path) -> None:
    """Two processes, the same results as one; the tables are the same."""
    arguments = {"tasks": ("dtd", "eurosat"), "methods": "zero-shot,prompt-ot"}
    bench(**arguments, out="one")
    told = []
    listener = BenchmarkListener(on_cell=lambda record, done, total: told.append((done, total)))
    name = f"openai:{smallest_clip}"
    found = bench(**arguments, backbone=name, device="cpu", jobs=2, listener=listener)
    assert found.problems == []
    assert sorted(told) == [(done, 8) for done in range(1, 9)]
    written = lines(tmp_path / "out")
    assert len(written) == len({line["cell"] for line in written}) == 8
    one, two = answers(tmp_path / "one"), answers(tmp_path / "out")
    assert one.keys() == two.keys()
    assert not list((tmp_path / "out" / "claims").iterdir())
    bench(**arguments, backbone=name, device="cpu", jobs=2, listener=listener)  # nothing is missing
    assert len(told) == 8


@pytest.mark.slow
def test_a_process_that_dies_is_told_of(
    bench: Bench, smallest_clip: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "clip.safetensors"
    shutil.copy(smallest_clip, copy)
    # After this process has read it, before the others do.
    vanish = BenchmarkListener(on_forecast=lambda forecast: copy.unlink())
    with pytest.raises(PromptotError, match="2 of 2 processes ended early"):
        bench(tasks=("dtd",), backbone=f"openai:{copy}", device="cpu", jobs=2, listener=vanish)
    assert "clip.safetensors" in capfd.readouterr().out


def test_names_of_suites_and_sets() -> None:
    assert len(named_sets("coop")) == 15
    assert [s.key for s in named_sets("coop", ["DTD", "food-101"])] == ["food101", "dtd"]
    assert [s.key for s in named_sets("caltech-101")] == ["caltech101"]
    with pytest.raises(PromptotError, match="neither a suite nor"):
        named_sets("cop")
