"""Which images each protocol learns from and tests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from promptot.backbones import Backbone
from promptot.data import Example, ImageTask, list_styles
from promptot.errors import PromptotError
from promptot.experiments import PROTOCOLS
from promptot.experiments.forecast import _forecast_method, _Rates
from promptot.experiments.methods import Method
from promptot.experiments.protocols.domain_generalization import HELD_OUT_STYLE
from promptot.experiments.scenarios import Scenario, load_sources
from promptot.recipes import load_recipe
from promptot.runs.draw import select_classes

GROUPS = ["activities", "animals", "food", "objects", "travel"]


def scenarios(protocol: str, tasks: list[str], split: str = "test", **more: list) -> list[Scenario]:
    sources = load_sources(tasks)
    return PROTOCOLS[protocol].scenarios(
        sources, more.get("sources", []), more.get("shots", [2]), split
    )


def styles(task: ImageTask, split: str) -> set[str]:
    return {example.path.partition("::")[2].split("/")[0] for example in getattr(task, split)}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("split", ["test", "validation"])
def test_nothing_that_is_tested_can_be_learnt(protocol: str, split: str) -> None:
    for scenario in scenarios(protocol, [], split):
        pool = {example.path for example in scenario.pool.train}
        for part in scenario.parts.values():
            assert part.test
            assert not pool & {example.path for example in part.test}
            assert not part.train
            assert not part.validation


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_validation_never_sees_a_test_style(protocol: str) -> None:
    for scenario in scenarios(protocol, [], "validation"):
        for part in scenario.parts.values():
            assert styles(part, "test") <= set(list_styles("validation"))


def test_base_to_novel_tests_both_halves_and_the_other_groups() -> None:
    found = scenarios("base-to-novel", [])
    assert [scenario.task for scenario in found] == GROUPS
    for scenario in found:
        assert list(scenario.parts) == ["base", "novel", "retention"]
        base, novel, other = (scenario.parts[name].class_names for name in scenario.parts)
        assert (*base, *novel) == scenario.pool.class_names
        assert not {*base, *novel} & set(other)
        assert select_classes(scenario.pool, scenario.classes).class_names == base


def test_cross_dataset_tests_every_other_task_among_its_own_names() -> None:
    (scenario,) = scenarios("cross-dataset", [], sources=["bundled:food"])
    targets = [f"target/{name}" for name in GROUPS if name != "food"]
    assert list(scenario.parts) == ["source", *targets, "retention"]
    assert (scenario.task, scenario.classes) == ("food", "all")
    assert scenario.parts["source"].class_names == scenario.pool.class_names
    whole = load_sources(["bundled:animals"])[0].task
    assert scenario.parts["target/animals"].class_names == whole.class_names
    assert len(scenarios("cross-dataset", [])) == len(GROUPS)


def test_domains_are_styles_and_those_of_validation_are_marked() -> None:
    (scenario,) = scenarios("domain-generalization", ["bundled:food"])
    assert styles(scenario.pool, "train") == set(list_styles("train")) - {HELD_OUT_STYLE}
    assert [name for name in scenario.parts if name != "retention"] == [
        f"domain/{HELD_OUT_STYLE}",
        "domain/twemoji",
        "validation/fxemoji",
        "validation/streamline-emojis",
    ]
    for name, part in scenario.parts.items():
        if name != "retention":
            assert styles(part, "test") == {name.partition("/")[2]}
            assert {e.label for e in part.test} == set(range(len(part.class_names)))
            assert set(part.class_names) <= set(scenario.pool.class_names)
    means = {m.key for m in PROTOCOLS["domain-generalization"].metrics([scenario])}
    assert {"domains", "domain/twemoji", "validation/fxemoji"} <= means


def test_few_shot_has_a_trial_for_each_number_of_shots() -> None:
    found = scenarios("few-shot", ["bundled:food"], shots=[1, 4])
    assert [scenario.unit for scenario in found] == [("food", 1), ("food", 4)]
    assert list(found[0].parts) == ["test", "retention"]


def test_folders_are_divided_and_keep_each_others_names(make_photos: Callable[..., Path]) -> None:
    photos, more = make_photos("photos", images=10), make_photos("more", images=10)
    (more / "red").rename(more / "pink")
    found = scenarios("base-to-novel", [str(photos), str(more)])
    for scenario, other in zip(found, ("pink", "red"), strict=True):
        assert scenario.parts["retention"].class_names == (other,)
        assert len(scenario.parts["retention"].test) == 3
        assert (len(scenario.pool.train), len(scenario.pool.validation)) == (20, 8)
    alone = scenarios("few-shot", [str(photos)])
    assert list(alone[0].parts) == ["test"]


def test_folders_as_domains_score_the_classes_present(make_photos: Callable[..., Path]) -> None:
    photos, sketch = make_photos("photos"), make_photos("sketch")
    for image in (sketch / "red").iterdir():
        image.unlink()
    (sketch / "red").rmdir()
    tasks = [str(photos), str(sketch)]
    (scenario,) = scenarios("domain-generalization", tasks, sources=[str(photos)])
    assert scenario.parts["domain/sketch"].class_names == ("blue", "green apple", "yellow")
    with pytest.raises(PromptotError, match="has the class 'red', which the source 'sketch' has"):
        scenarios("domain-generalization", tasks, sources=["sketch"])


def test_what_is_not_possible(make_photos: Callable[..., Path]) -> None:
    photos = str(make_photos("photos", splits=("train", "test")))
    with pytest.raises(PromptotError, match="no other to test on"):
        scenarios("cross-dataset", [photos])
    with pytest.raises(PromptotError, match="no other domain"):
        scenarios("domain-generalization", [photos])
    with pytest.raises(PromptotError, match="no validation images"):
        scenarios("few-shot", [photos], "validation")
    with pytest.raises(PromptotError, match="Two tasks are called 'photos'"):
        load_sources([photos, photos])
    with pytest.raises(PromptotError, match="Did you mean 'animals'"):
        load_sources(["bundled:animal"])
    with pytest.raises(PromptotError, match="not one of the tasks"):
        scenarios("few-shot", [photos], sources=["food"])


@pytest.mark.parametrize(
    ("overrides", "reads"),
    [
        ((), 5),  # each epoch anew
        (("data.views=2",), 2),  # what comes of each view is kept
        (("data.views=2", "data.teacher=cached-views"), 2 + 5),  # the teacher's features alone are
    ],
    ids=["new", "fixed", "cached teacher"],
)
def test_a_forecast_counts_every_reading_of_an_image(
    backbone: Backbone, overrides: tuple[str, ...], reads: int
) -> None:
    train = tuple(Example(f"{label}.png", label) for label in (0, 1))
    task = ImageTask("t", ("cat", "dog"), train=train)
    scenario = Scenario("t", task, "all", {"test": task}, shots=1)
    recipe = load_recipe("prompt-ot", ["optim.epochs=5", "optim.batch_size=2", *overrides])
    cells = [(Method("p", "prompt-ot", recipe), scenario)]
    hours = _forecast_method(cells, backbone, _Rates(read=3600.0, encode=0.0))[0].training_seconds
    assert round(hours / 3600) == 2 * reads  # two images
