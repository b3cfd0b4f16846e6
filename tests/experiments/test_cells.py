"""A cell's key changes with what decides its result, and with nothing else."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from promptot.backbones import Backbone
from promptot.data import Example, ImageTask
from promptot.errors import PromptotError
from promptot.experiments.cells import fingerprint, make_cells
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.methods import Method, parse_methods
from promptot.experiments.protocols import PROTOCOLS
from promptot.experiments.run_cell import CellContext, run_cell
from promptot.experiments.run_cells import group_cells
from promptot.experiments.scenarios import Scenario, load_sources
from promptot.experiments.suite import load_suite


@pytest.fixture
def scenario(photos: Path) -> Scenario:
    return PROTOCOLS["base-to-novel"].scenarios(load_sources([str(photos)]), [], [2], "test")[0]


def test_the_key_changes_with_what_decides(scenario: Scenario, backbone: Backbone) -> None:
    def key(protocol="base-to-novel", scenario=scenario, method="ivlp", seed=1, split="test"):
        (cell,) = make_cells(protocol, [scenario], parse_methods(method), [seed], split, backbone)
        return cell.key

    others = [
        key(protocol="few-shot"),
        key(method="ivlp[optim.lr=0.1]"),
        key(method="prompt-ot"),
        key(seed=2),
        key(split="validation"),
        key(scenario=replace(scenario, shots=3)),
        key(scenario=replace(scenario, classes="all")),
        key(scenario=replace(scenario, task="pets")),
    ]
    assert len({key(), *others}) == 1 + len(others)
    backbone.precision = "bf16"
    try:
        assert key() not in others
        bf16 = key()
    finally:
        backbone.precision = "fp32"
    assert key() != bf16


def test_a_method_s_name_does_not(scenario: Scenario, backbone: Backbone) -> None:
    (method,) = parse_methods("ivlp")
    (plain,) = parse_methods("prompt-ot")
    recipe = method.recipe.model_copy(update={"name": "mine", "summary": "own"})
    renamed = Method("mine", "mine", recipe)
    keys = [
        make_cells("few-shot", [scenario], [m], [1], "test", backbone)[0].key
        for m in (method, renamed, plain)
    ]
    assert keys[0] == keys[1] != keys[2]


def test_anchor_words_decide_where_they_are_read(
    scenario: Scenario, backbone: Backbone, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"

    def keys(text: str) -> list[str]:
        words.write_text(text)
        own = f"vocabulary.words={words}"
        methods = parse_methods(f"prompt-ot-vocabulary[{own}],prompt-ot[{own}]")
        return [c.key for c in make_cells("few-shot", [scenario], methods, [1], "test", backbone)]

    first, second = keys("owl\ncup\n"), keys("owl\ncap\n")
    assert first[0] != second[0]
    assert first[1] == second[1]


def test_the_fingerprint_knows_images_labels_and_names(scenario: Scenario) -> None:
    pool, parts = scenario.pool, dict(scenario.parts)
    first = replace(pool.train[0], label=1)
    novel = replace(parts["novel"], test=parts["novel"].test[1:])
    names = replace(pool, class_names=("azure", *pool.class_names[1:]))
    variants = [
        replace(scenario, pool=replace(pool, train=(first, *pool.train[1:]))),
        replace(scenario, pool=replace(pool, train=pool.train[1:])),
        replace(scenario, pool=replace(pool, validation=())),
        replace(scenario, pool=names),
        replace(scenario, parts={**parts, "novel": novel}),
        replace(scenario, parts={"base": parts["base"]}),
    ]
    assert len({fingerprint(scenario), *map(fingerprint, variants)}) == 1 + len(variants)


def test_a_moved_folder_is_the_same_and_a_changed_image_is_not(
    photos: Path, tmp_path: Path, make_photos: Callable[..., Path]
) -> None:
    def of(folder: Path) -> str:
        sources = load_sources([str(folder)])
        return fingerprint(PROTOCOLS["few-shot"].scenarios(sources, [], [2], "test")[0])

    moved = tmp_path / "elsewhere" / photos.name
    shutil.copytree(photos, moved)
    assert of(moved) == of(photos)
    with (moved / "red" / "0.png").open("ab") as file:
        file.write(b"more")
    assert of(moved) != of(photos)


def test_cells_of_one_trial_and_seed_follow_each_other(
    scenario: Scenario, backbone: Backbone
) -> None:
    methods = parse_methods("zero-shot,ivlp")
    cells = make_cells(
        "few-shot", [scenario, replace(scenario, shots=1)], methods, [3, 4], "test", backbone
    )
    assert [(c.shots, c.seed, c.method.label) for c in cells] == [
        (shots, seed, label)
        for shots in (2, 1)
        for seed in (3, 4)
        for label in ("zero-shot", "ivlp")
    ]
    assert {c.method.recipe.data.shots for c in cells} == {1, 2}


def test_cells_of_before_are_found_again() -> None:
    """Keys as the first version with them made them; images that are nowhere have no times."""
    pets = ImageTask("pets", ("cat", "dog"))
    shown = tuple(Example(f"none/{name}/0.png", i) for i, name in enumerate(pets.class_names))
    tested = {"test": replace(pets, test=(Example("none/cat/1.png", 0),))}
    scenario = Scenario("pets", replace(pets, train=shown), "all", tested, 2)
    backbone = SimpleNamespace(identity=lambda: SimpleNamespace(digest="0" * 64))
    methods = parse_methods("zero-shot,prompt-ot")
    cells = make_cells("few-shot", [scenario], methods, [1], "test", backbone)  # type: ignore[arg-type]
    assert [cell.key for cell in cells] == [
        "bd73636348c0376d1e414198cad0b2131d456430167004dcc93b436586e28fc6",
        "80b3aa28db8b9e59777742c265df227083291b2ec0e67c4f6fe3f5f5bd4cb911",
    ]


def test_a_cell_is_a_small_description_that_can_be_sent(
    scenario: Scenario, backbone: Backbone
) -> None:
    methods = load_suite("coop").methods("base-to-novel", "zero-shot,prompt-ot", [])
    scenario = replace(scenario, task="DTD")  # one that has published settings
    for cell in make_cells("base-to-novel", [scenario], methods, [1], "test", backbone):
        sent = pickle.dumps(cell)
        assert len(sent) < 5000
        assert b"Example" not in sent
        assert vars(pickle.loads(sent)) == vars(cell)
        assert cell.unit == scenario.unit
        assert cell.images == fingerprint(scenario)


def test_groups_share_views_and_are_enough_for_all_jobs(
    scenario: Scenario, backbone: Backbone
) -> None:
    methods = parse_methods("zero-shot,ivlp,coop,vpt")
    scenarios = [scenario, replace(scenario, shots=1)]
    cells = make_cells("few-shot", scenarios, methods, [3, 4], "test", backbone)
    groups = group_cells(cells, 1)
    assert [[(c.shots, c.seed) for c in group] for group in groups] == [
        [(shots, seed)] * 4 for shots in (2, 1) for seed in (3, 4)
    ]
    for jobs in (2, 3, 8):
        divided = group_cells(cells, jobs)
        assert len(divided) >= min(2 * jobs, len(cells))
        assert sorted(c.key for group in divided for c in group) == sorted(c.key for c in cells)
        assert all(len({(c.unit, c.seed) for c in group}) == 1 for group in divided)
    first, second, *_ = group_cells(cells, 2)
    assert (first[0].unit, second[0].unit) == (scenarios[0].unit, scenarios[1].unit)  # far apart
    assert group_cells([], 2) == []


def test_a_record_depends_on_the_cell_alone(scenario: Scenario, backbone: Backbone) -> None:
    def context() -> CellContext:
        images = ImageFeatures(None, backbone)
        return CellContext({scenario.unit: scenario}, backbone, images, check_images=True)

    methods = parse_methods("zero-shot,ivlp", ["optim.epochs=1", "data.views=1"])
    cells = make_cells("base-to-novel", [scenario], methods, [1, 2], "test", backbone)
    shared = context()
    records = [run_cell(cell, shared) for cell in cells]
    for cell, record in reversed(list(zip(cells, records, strict=True))):
        alone = run_cell(pickle.loads(pickle.dumps(cell)), context())
        assert alone.model_copy(update={"seconds": record.seconds}) == record
        assert record.is_result
    with pytest.raises(PromptotError, match="have changed"):
        run_cell(replace(cells[0], images="0" * 64), context())
