"""Published settings, cell by cell, against the table of what was published, written by hand."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from promptot.backbones import Backbone, load_backbone
from promptot.cli.app import app
from promptot.errors import PromptotError
from promptot.experiments.benchmarking import benchmark, benchmark_settings
from promptot.experiments.cells import make_cells
from promptot.experiments.methods import parse_methods
from promptot.experiments.planning import BenchmarkSettings, make_plan
from promptot.experiments.settings_listing import epoch_text, state_text
from promptot.experiments.suite import load_suite
from promptot.recipes import describe, list_recipes, load_recipe
from promptot.runs.learning import adapt

NONE = ("--backbone", "openai:none.pt", "--root", "none")
"""Weights and data that can't be loaded."""
ELEVEN = (
    *("ImageNet", "Caltech101", "OxfordPets", "StanfordCars", "Flowers102", "Food101"),
    *("FGVCAircraft", "SUN397", "DTD", "EuroSAT", "UCF101"),
)
SENTENCES = {
    "OxfordPets": "a photo of a {}, a type of pet.",
    "Flowers102": "a photo of a {}, a type of flower.",
    "FGVCAircraft": "a photo of a {}, a type of aircraft.",
    "DTD": "{} texture.",
    "EuroSAT": "a centered satellite photo of {}.",
    "Food101": "a photo of {}, a type of food.",
    "UCF101": "a photo of a person doing {}.",
}
B2N, CROSS, DOMAINS, FEW = "base-to-novel", "cross-dataset", "domain-generalization", "few-shot"
TASKS = {B2N: ELEVEN, CROSS: ("ImageNet",), DOMAINS: ("ImageNet",), FEW: ELEVEN}
SHOTS: dict[str, tuple[int, ...]] = {
    B2N: (16,),
    CROSS: (16,),
    DOMAINS: (16,),
    FEW: (1, 2, 4, 8, 16),
}

# The table: (lr, epochs, batch size) of each method and protocol that anything was published for.
SCHEDULE: dict[str, dict[str, tuple[float, int, int]]] = {
    "prompt-ot": {B2N: (0.005, 40, 4), CROSS: (0.005, 40, 4), DOMAINS: (0.005, 40, 4)},
    "coop": {B2N: (0.002, 200, 32), CROSS: (0.002, 50, 32), DOMAINS: (0.002, 50, 32)},
    "cocoop": {B2N: (0.002, 10, 1), CROSS: (0.002, 10, 1), DOMAINS: (0.002, 10, 1)},
    "kgcoop": {B2N: (0.002, 100, 128)},
    "ivlp": {B2N: (0.0025, 20, 4)},
    "maple": {
        B2N: (0.0035, 5, 4),
        CROSS: (0.0026, 2, 4),
        DOMAINS: (0.0026, 2, 4),
        FEW: (0.0035, 50, 4),
    },
    "vpt": {B2N: (0.0025, 5, 4), CROSS: (0.0025, 5, 4), DOMAINS: (0.0025, 5, 4)},
    "promptsrc": {
        B2N: (0.0025, 20, 4),
        CROSS: (0.0025, 20, 4),
        DOMAINS: (0.0025, 20, 4),
        FEW: (0.0025, 50, 4),
    },
}
CLASSES = {
    "ImageNet": 1000, "Caltech101": 100, "OxfordPets": 37, "StanfordCars": 196, "Flowers102": 102,
    "Food101": 101, "FGVCAircraft": 100, "SUN397": 397, "DTD": 47, "EuroSAT": 10, "UCF101": 101,
}  # fmt: skip
COOP_FEW_SHOT = {16: 200, 8: 200, 4: 100, 2: 100, 1: 50}
PUBLISHED_EPOCHS = {
    ("prompt-ot", B2N): 31,
    ("prompt-ot", CROSS): 11,
    ("prompt-ot", DOMAINS): 11,
    ("vpt", CROSS): 2,
    ("vpt", DOMAINS): 2,
}
OTHER_GPA = ("StanfordCars", "Flowers102", "FGVCAircraft", "DTD", "EuroSAT")
VARIANTS = [name for name in list_recipes() if name.startswith("prompt-ot-")] + ["pointwise"]


def schedule(method: str, protocol: str, task: str, shots: int) -> tuple[float, int, int] | None:
    """(lr, epochs, batch size) of a cell by the table; None where nothing was published."""
    if method == "coop" and protocol == B2N and task == "ImageNet":
        return 0.002, 50, 32
    if method in ("coop", "coop-16", "coop-class-specific") and protocol == FEW:
        return 0.002, 50 if task == "ImageNet" else COOP_FEW_SHOT[shots], 32
    if method == "clip-lora" and protocol == FEW:  # 500 steps a shot, in whole epochs
        batches = -(-CLASSES[task] * shots // 32)
        return 2e-4, -(-500 * shots // batches), 32
    return SCHEDULE.get(method, {}).get(protocol)


def design(method: str, protocol: str) -> dict[str, Any]:
    """What the table says of a method's tokens, depths and projections."""
    shallow = protocol in (CROSS, DOMAINS)
    deep = {"prompts.text_tokens": 4, "prompts.vision_tokens": 4}
    if method == "prompt-ot":
        return deep | {"prompts.text_depth": 12, "prompts.vision_depth": 12}
    if method == "clip-lora":
        return {"prompts.targets": ["q", "k", "v"], "prompts.rank": 2, "prompts.dropout": 0.25}
    if method == "ivlp":
        return deep | {"prompts.text_depth": 9, "prompts.vision_depth": 9}
    if method == "promptsrc":
        depth = 3 if shallow else 9
        return deep | {"prompts.text_depth": depth, "prompts.vision_depth": depth}
    if method == "maple":
        return {
            "prompts.text_tokens": 2,
            "prompts.text_depth": 3 if shallow else 9,
            "prompts.cloned_projections": True,
        }
    if method == "vpt":
        tokens = {"prompts.text_tokens": 0, "prompts.vision_tokens": 8}
        return tokens | {"prompts.vision_depth": 12}
    if method in ("coop-16", "coop-class-specific") or (method == "coop" and protocol == FEW):
        return {
            "prompts.text_tokens": 16,
            "prompts.init_words": None,
            "prompts.class_specific": method == "coop-class-specific",
        }
    return {"prompts.text_tokens": 4, "prompts.init_words": "a photo of a"}


def average(protocol: str, task: str) -> dict[str, Any]:
    """PromptSRC's average over epochs."""
    mean, sd = {B2N: (15, 1), CROSS: (6, 10), DOMAINS: (6, 10), FEW: (30, 30)}[protocol]
    if protocol == FEW and task in OTHER_GPA:
        mean, sd = 45, 5
    return {"ensembling.rule": "gaussian", "ensembling.mean": mean, "ensembling.sd": sd}


def sentence(method: str, protocol: str, task: str) -> str:
    if method == "kgcoop" and protocol == B2N and task == "DTD":
        return "a photo of a {}, a type of texture."
    own = method in ("zero-shot", "kgcoop", "clip-lora")
    return SENTENCES.get(task, "a photo of a {}.") if own else "a photo of a {}."


def listed(*arguments: str) -> dict[str, Any]:
    """What `promptot benchmark --suite coop … --settings --json -` prints, in an empty folder."""
    command = ["benchmark", "--suite", "coop", *NONE, *arguments, "--settings", "--json", "-"]
    result = CliRunner().invoke(app, command, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


@pytest.fixture
def nothing_at_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder, which stays empty: neither `NONE` nor anything else is in it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("read_at", ["last", "published"])
@pytest.mark.parametrize("protocol", TASKS)
def test_every_cell_has_the_settings_of_the_table(
    protocol: str, read_at: str, nothing_at_hand: Path
) -> None:
    names = ",".join(list_recipes())
    some = SHOTS[protocol] if read_at == "last" else SHOTS[protocol][-1:]
    more = ("--shots", ",".join(map(str, some)), "--read-at", read_at)
    if some == SHOTS[protocol]:  # what is run unless shots are given
        more = more[2:]
    found = listed(protocol, "-m", names, "--seeds", "1", *more)
    assert (found["suite"], found["protocol"], found["read_at"]) == ("coop", protocol, read_at)
    cells = {(cell["method"], cell["task"], cell["shots"]): cell for cell in found["cells"]}
    assert len(cells) == len(found["cells"])
    assert set(cells) == {
        (method, task, shots)
        for method in list_recipes()
        for task in TASKS[protocol]
        for shots in some
    }
    for (method, task, shots), cell in cells.items():
        values, where = cell["settings"], (protocol, method, task, shots)
        assert values["data.shots" if "data.shots" in values else "data.templates"] in (
            shots,
            load_recipe(method).data.templates,
        )
        if values["data.templates"] == "one":
            assert values["data.template"] == sentence(method, protocol, task), where
        expected = schedule(method, protocol, task, shots)
        published_epoch = PUBLISHED_EPOCHS.get((method, protocol))
        assert cell["published_epoch"] == published_epoch, where
        if expected is None:
            assert cell["state"] == ("published" if method == "zero-shot" else "not published")
            own = describe(load_recipe(method, [f"data.shots={shots}"]))
            own = {key: value for key, value in own.items() if "." in key}
            if "data.template" in own:
                own["data.template"] = sentence(method, protocol, task)
            assert values == json.loads(json.dumps(own)), where
            assert cell["differs"] == {}
        else:
            assert cell["state"] == "published", where
            keys = ("optim.lr", "optim.epochs", "optim.batch_size")
            assert tuple(values[key] for key in keys) == expected, where
            decay = (values.get("optim.momentum"), values["optim.weight_decay"])
            assert decay == ((None, 1e-2) if method == "clip-lora" else (0.9, 5e-4))
            for key, value in design(method, protocol).items():
                assert values[key] == value, (*where, key)
            if method == "promptsrc":
                for key, value in average(protocol, task).items():
                    assert values[key] == value, (*where, key)
                assert (values["data.templates"], values["data.template_mean"]) == (
                    "imagenet-60",
                    "raw",
                )
            else:
                assert values["ensembling.rule"] == "none"
        if "optim.epochs" in values:
            last, read = values["optim.epochs"], published_epoch
            if read is None and method in VARIANTS:  # or the control would not be one
                read = PUBLISHED_EPOCHS.get(("prompt-ot", protocol))
            assert cell["epochs"] == last
            assert cell["read_epoch"] == ((read or last) if read_at == "published" else last)
        else:
            assert cell["epochs"] is cell["read_epoch"] is None
    assert list(nothing_at_hand.iterdir()) == []


def test_every_seed_is_a_cell_and_some_data_sets_may_be_chosen(nothing_at_hand: Path) -> None:
    found = listed(B2N, "--tasks", "dtd,eurosat", "--seeds", "3,7", "-m", "coop,ivlp")
    cells = [(c["task"], c["seed"], c["method"]) for c in found["cells"]]
    assert cells == [
        (task, seed, method)
        for task in ("DTD", "EuroSAT")
        for seed in (3, 7)
        for method in ("coop", "ivlp")
    ]
    assert [(row["method"], row["where"]) for row in found["rows"]] == [
        ("coop", "all"),
        ("ivlp", "all"),
    ]


def test_settings_for_people(nothing_at_hand: Path) -> None:
    command = ["benchmark", "--suite", "coop", FEW, "--settings", "-m", "zero-shot,coop,prompt-ot"]
    command += NONE
    said = CliRunner().invoke(app, command, catch_exceptions=False).output
    assert max(map(len, said.splitlines())) <= 80
    assert "not published" in said
    assert "optim.epochs" in said
    assert "K = 1;" in said


def test_rows_say_where_what_and_which_epoch() -> None:
    _, rows = benchmark_settings(FEW, methods="coop,promptsrc,maple,prompt-ot,zero-shot")
    shown = [(row.method, row.where, row.epochs, state_text(row)) for row in rows]
    told = "published (what its authors tell users; it does not reproduce for them)"
    others = "StanfordCars, Flowers102, FGVCAircraft, DTD, EuroSAT"
    assert shown == [
        ("coop", "K = 1; ImageNet (K = 2, 4, 8, 16)", 50, "published"),
        ("coop", "all but ImageNet (K = 2, 4)", 100, "published"),
        ("coop", "all but ImageNet (K = 8, 16)", 200, "published"),
        ("promptsrc", f"all but {others}", 50, "published"),
        ("promptsrc", others, 50, "published"),
        ("maple", "all", 50, told),
        ("prompt-ot", "all", 40, "not published"),
        ("zero-shot", "all", None, "published"),
    ]
    _, (last,) = benchmark_settings(CROSS, methods="prompt-ot")
    assert (last.where, epoch_text(last)) == ("ImageNet", "40 (published: 11)")
    _, rows = benchmark_settings(CROSS, methods="prompt-ot,pointwise,vpt", read_at="published")
    assert [epoch_text(row) for row in rows] == ["11 of 40", "11 of 40", "2 of 5"]
    assert [row.state for row in rows] == ["published", "not published", "published"]
    assert rows[1].note == "read as prompt-ot is"
    _, rows = benchmark_settings(B2N, methods="prompt-ot,early=prompt-ot[evaluate_epoch=31]")
    assert [(row.state, epoch_text(row)) for row in rows] == [
        ("published", "40 (published: 31)"),
        ("published", "31 of 40"),
    ]


def test_values_of_one_s_own_go_before_and_are_told_of(tmp_path: Path) -> None:
    def states(methods: str, *overrides: str, **more: Any) -> list[str]:
        _, rows = benchmark_settings(B2N, methods=methods, overrides=overrides, **more)
        return [state_text(row) for row in rows]

    assert states("vpt") == ["published"]
    assert states("vpt[optim.lr=0.1]") == ["changed"]
    assert states("vpt", "optim.epochs=7") == ["changed"]
    assert states("vpt", "optim.epochs=5") == ["published"]  # which is what was published
    assert states("zero-shot", "optim.epochs=5") == ["published"]  # it has no epochs
    assert states("vpt", shots=(4,)) == ["not published (published for 16 shots)"]
    assert states("zero-shot", shots=(4,)) == ["published"]  # it learns from no image
    cells, _ = benchmark_settings(B2N, methods="vpt", shots=(4,))
    assert cells[0].settings["prompts.vision_tokens"] == 8
    own = tmp_path / "vpt.yaml"  # a file of one's own is no published method, whatever its name
    own.write_text("prompts: {text_tokens: 0, vision_tokens: 2}\n")
    assert states(str(own)) == ["not published"]
    (cell, *_), _ = benchmark_settings(B2N, methods="zero-shot[data.template=the {}.]")
    assert cell.settings["data.template"] == "the {}."
    (cell, *_), _ = benchmark_settings(
        B2N, methods="kgcoop", tasks=("dtd",), overrides=("data.template=the {}.",)
    )
    assert cell.settings["data.template"] == "the {}."


def test_what_can_not_be_listed_or_read() -> None:
    with pytest.raises(PromptotError, match="Only a suite has published settings") as error:
        benchmark_settings(B2N, suite=None)
    assert "--suite coop" in (error.value.fix or "")
    with pytest.raises(PromptotError, match="Did you mean 'coop'"):
        benchmark_settings(B2N, suite="cop")
    with pytest.raises(PromptotError, match="takes no part"):
        benchmark_settings(B2N, tasks=("imagenet-a",))
    with pytest.raises(PromptotError, match="one number of shots"):
        benchmark_settings(B2N, shots=(1, 2))
    with pytest.raises(PromptotError, match="The seeds"):
        benchmark_settings(B2N, seeds=(1, 1))
    with pytest.raises(PromptotError, match="evaluate_epoch is 31, but optim.epochs is 1"):
        benchmark_settings(
            B2N, methods="prompt-ot", overrides=("optim.epochs=1",), read_at="published"
        )
    with pytest.raises(PromptotError, match="belong to a suite"):
        make_plan(BenchmarkSettings(FEW, Path("out"), read_at="published"))


def test_names_in_the_settings_are_those_of_recipes_protocols_and_data_sets() -> None:
    """A misspelt name in the YAML would be a setting that never applies."""
    suite = load_suite("coop")
    known = {*suite.settings, *suite.variants, *suite.own_template}
    known |= {name for own in suite.variants.values() for name in own}
    known |= set(suite.published[B2N].methods)
    assert known <= set(list_recipes())
    for method, protocols in suite.settings.items():
        assert set(protocols) <= set(TASKS)
        for protocol, found in protocols.items():
            for case in found.cases:
                assert set(case.data) <= set(suite.tasks)
                assert set(case.shots) <= set(SHOTS[protocol])
                load_recipe(method, [*found.values, *case.values])
    assert {p: tuple(sorted(k)) for p, k in suite.shots.items()} == SHOTS
    assert len(suite.variants["prompt-ot"]) == len(VARIANTS)


@pytest.fixture(scope="module")
def smallest(smallest_clip: Path) -> Backbone:
    return load_backbone(f"openai:{smallest_clip}")


def request(public_data: Path, methods: str, **more: Any) -> BenchmarkSettings:
    return BenchmarkSettings(
        more.pop("protocol", B2N),
        Path("out"),
        methods,
        seeds=(1,),
        suite="coop",
        root=public_data,
        unverified=True,
        **more,
    )


def test_cells_of_other_settings_are_not_taken_for_these(
    public_data: Path, smallest: Backbone
) -> None:
    """A result of an earlier version's settings has another key; what is the same keeps its own."""

    def keys(found: BenchmarkSettings, methods: Any = None) -> dict[tuple[str, str], str]:
        plan = make_plan(found)
        chosen = plan.methods if methods is None else methods
        cells = make_cells(found.protocol, plan.scenarios, chosen, [1], "test", smallest)
        return {(cell.method.label, cell.task): cell.key for cell in cells}

    names = "coop,vpt,maple,promptsrc,prompt-ot,ivlp,cocoop"
    now = keys(request(public_data, names))
    before = keys(request(public_data, names), parse_methods(names))
    same = {method for method, task in now if now[method, task] == before[method, task]}
    assert same == {"prompt-ot", "ivlp", "cocoop", "coop"}
    assert [t for t in ELEVEN if now["coop", t] == before["coop", t]] == ["ImageNet"]
    read = keys(request(public_data, "prompt-ot,ivlp", read_at="published"))
    assert read["prompt-ot", "DTD"] != now["prompt-ot", "DTD"]
    assert read["ivlp", "DTD"] == now["ivlp", "DTD"]
    # the same model under two names is one cell
    few = request(public_data, "coop,coop-16", protocol=FEW, shots=(1,), tasks=("dtd",))
    assert len(set(keys(few).values())) == 1


def test_the_published_epoch_is_what_is_tested(
    public_data: Path, smallest: Backbone, tmp_path: Path, watched: Callable[..., Any]
) -> None:
    """Of a schedule of five epochs the prompts of the second, to the bit."""
    kept: dict[str, list[Any]] = {}

    def watch(*arguments: Any, **more: Any) -> Any:
        model = adapt(*arguments, **more)
        rates = [epoch.lr for epoch in arguments[3].epochs]
        kept[name] = [rates, [tensor.clone() for tensor in model.prompts.vision]]
        return model

    arguments: dict[str, Any] = {
        "methods": "vpt",
        "suite": "coop",
        "root": public_data,
        "unverified": True,
        "tasks": ("dtd",),
        "seeds": (1,),
        "shots": (1,),
        "backbone": smallest,
        "overrides": ("optim.batch_size=2",),
        "executor": watched(watch),
    }
    found = {}
    for name in ("last", "published"):
        found[name] = benchmark(CROSS, tmp_path / name, **arguments, read_at=name)
    (last, _), (early, prompts) = kept["last"], kept["published"]
    assert len(last) == 5
    assert early == last[:2]  # the schedule is that of five epochs
    name = "two"
    benchmark(CROSS, tmp_path / "two", **(arguments | {
        "overrides": ("optim.batch_size=2", "evaluate_epoch=2")}))  # fmt: skip
    for ours, theirs in zip(prompts, kept["two"][1], strict=True):
        assert ours.equal(theirs)
    assert [row.read_epoch for row in found["published"].summary.settings] == [2]
    for name, text in (("last", "5 (published: 2)"), ("published", "2 of 5")):
        for file in ("tables.md", "tables.tex", "report.html"):
            assert text in (tmp_path / name / file).read_text()
    record = json.loads((tmp_path / "published" / "results.jsonl").read_text())
    assert record["recipe"]["evaluate_epoch"] == record["training"]["epochs"] == 2


def test_a_run_has_the_settings_that_are_listed(
    public_data: Path, smallest: Backbone, tmp_path: Path
) -> None:
    found = benchmark(
        FEW,
        tmp_path,
        methods="zero-shot,promptsrc,ivlp",
        suite="coop",
        root=public_data,
        unverified=True,
        tasks=("dtd", "food101"),
        seeds=(1,),
        shots=(1,),
        backbone=smallest,
        overrides=("optim.epochs=1",),
    )
    cells, rows = benchmark_settings(
        FEW,
        methods="zero-shot,promptsrc,ivlp",
        tasks=("dtd", "food101"),
        seeds=(1,),
        shots=(1,),
        overrides=("optim.epochs=1",),
    )
    assert list(found.summary.settings) == rows
    records = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    ran = {(r["method"], r["task"]): r["recipe"] for r in records}
    for cell in cells:
        recipe = ran[cell.method, cell.task]
        for key, value in cell.settings.items():
            section, _, name = key.partition(".")
            if key != "data.template" and name in recipe[section]:
                assert recipe[section][name] == value
    assert ran["promptsrc", "DTD"]["ensembling"]["mean"] == 45
    assert ran["promptsrc", "Food101"]["ensembling"]["mean"] == 30
    (src,) = [m for m in found.summary.methods if m.label == "promptsrc"]
    assert src.settings["ensembling.mean"] == "30.0, 45.0"
    assert found.as_json()["settings"][1]["differs"]["data.template_mean"] == "raw"
