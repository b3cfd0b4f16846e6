from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from promptot.errors import PromptotError
from promptot.objectives.build import build_preservation
from promptot.recipes import Recipe, describe, list_recipes, load_recipe, recipe_keys


def refused(name: str | Path, *overrides: str) -> str:
    with pytest.raises(PromptotError) as caught:
        load_recipe(name, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", list_recipes())
def test_every_shipped_recipe_loads(name: str) -> None:
    recipe = load_recipe(name)
    assert recipe.name == name
    assert recipe.paper
    assert recipe.summary.endswith(".")
    assert recipe.summary.count(". ") == 0
    assert set(describe(recipe)) <= set(recipe_keys())


def test_the_shipped_recipes() -> None:
    assert list_recipes() == ["ivlp", "prompt-ot", "zero-shot"]


def test_prompt_ot_is_as_published() -> None:
    shown = describe(load_recipe("prompt-ot"))
    for key in ("name", "summary", "paper"):
        del shown[key]
    assert shown == {
        "prompts.design": "ivlp",
        "prompts.text_tokens": 4,
        "prompts.text_depth": 12,
        "prompts.vision_tokens": 4,
        "prompts.vision_depth": 12,
        "prompts.init_words": "a photo of a",
        "prompts.class_specific": False,
        "objective.preservation": "ot",
        "objective.strength": 10.0,
        "objective.eta": 0.5,
        "objective.solver": "exact",
        "optim.lr": 0.005,
        "optim.momentum": 0.9,
        "optim.weight_decay": 5e-4,
        "optim.epochs": 40,
        "optim.batch_size": 4,
        "optim.drop_last": True,
        "optim.warmup_epochs": 1,
        "optim.warmup_lr": 1e-4,
        "data.shots": 16,
        "data.template": "a photo of a {}.",
        "data.smallest_crop": 0.08,
        "data.views": None,
        "evaluate_epoch": None,
    }


@pytest.mark.parametrize(
    "overrides",
    [
        ["objective.preservation=none"],
        ["objective.preservation=pointwise"],
        [],
        ["objective.solver=sinkhorn"],
        ["objective.solver=sinkhorn-divergence", "objective.epsilon=0.3"],
    ],
)
def test_the_objective_can_be_built_from_its_options(overrides: list[str]) -> None:
    objective = load_recipe("prompt-ot", overrides).objective
    term = build_preservation(objective.preservation, **objective.options())
    assert (term is None) == (objective.preservation == "none")


def test_ivlp_is_as_published_and_preserves_nothing() -> None:
    recipe = load_recipe("ivlp")
    assert (recipe.optim.lr, recipe.optim.epochs, recipe.optim.warmup_lr) == (0.0025, 20, 1e-5)
    assert (recipe.prompts.text_depth, recipe.prompts.vision_depth) == (9, 9)
    assert recipe.objective.options() == {}
    assert "objective.strength" not in describe(recipe)


def test_zero_shot_trains_nothing() -> None:
    recipe = load_recipe("zero-shot")
    assert not recipe.trains
    assert load_recipe("ivlp").trains
    assert set(describe(recipe)) == {"name", "summary", "paper", "prompts.design", "data.template"}


def test_overrides_replace_single_keys() -> None:
    recipe = load_recipe(
        "prompt-ot",
        [
            "optim.lr=1e-4",
            "optim.epochs = 3",
            "data.shots=null",
            "optim.drop_last=false",
            "prompts.init_words=a drawing of a",
            "data.template={} texture.",
            "objective.preservation=pointwise",
            "evaluate_epoch=2",
            "name='7'",
        ],
    )
    assert recipe.optim.lr == 1e-4
    assert recipe.optim.epochs == 3
    assert recipe.data.shots is None
    assert recipe.optim.drop_last is False
    assert recipe.prompts.init_words == "a drawing of a"
    assert recipe.data.template == "{} texture."
    assert recipe.objective.options() == {"eta": 0.5}
    assert recipe.evaluate_epoch == 2
    assert recipe.name == "7"
    assert recipe.optim.momentum == 0.9


def test_the_last_override_of_a_key_wins_and_the_shipped_recipe_stays() -> None:
    assert load_recipe("ivlp", ["optim.lr=1", "optim.lr=2"]).optim.lr == 2.0
    assert load_recipe("ivlp").optim.lr == 0.0025


def test_a_section_that_the_file_leaves_out_can_be_overridden() -> None:
    assert load_recipe("zero-shot", ["prompts.design=ivlp", "optim.lr=0.1"]).optim.lr == 0.1


@pytest.mark.parametrize(
    ("override", "parts"),
    [
        ("optim.lrr=1", ["Unknown recipe key 'optim.lrr'", "Did you mean 'optim.lr'?"]),
        ("lr=1", ["'lr'", "Did you mean 'optim.lr'?"]),
        ("optmi.epochs=1", ["Did you mean 'optim.epochs'?"]),
        ("objective.lambda=1", ["Valid: objective.preservation, objective.strength"]),
        ("objective=ot", ["section", "objective.preservation"]),
        ("optim.lr", ["key=value"]),
        ("optim.lr=", ["key=value", "null"]),
        ("optim.lr=-1", ["'optim.lr' is -1", "greater than 0"]),
        ("optim.lr=.nan", ["optim.lr", "finite"]),
        ("optim.lr=fast", ["'optim.lr' is 'fast'", "number"]),
        ("optim.lr=null", ["'optim.lr' is None", "number"]),
        ("optim.epochs=2.5", ["'optim.epochs' is 2.5", "integer"]),
        ("optim.epochs=true", ["'optim.epochs' is True", "integer"]),
        ("optim.drop_last=1", ["'optim.drop_last' is 1", "boolean"]),
        ("optim.batch_size=0", ["'optim.batch_size' is 0", "greater than or equal to 1"]),
        ("optim.momentum=1", ["optim.momentum", "less than 1"]),
        ("objective.strength=-0.1", ["objective.strength", "greater than or equal to 0"]),
        ("objective.preservation=oot", ["'oot'", "'none', 'pointwise' or 'ot'"]),
        ("prompts.text_depth=0", ["prompts.text_depth", "greater than or equal to 1"]),
        ("data.shots=0", ["data.shots", "greater than or equal to 1"]),
        ("data.template=a photo", ["a photo", "exactly once"]),
        ("data.template={} or {}", ["exactly once"]),
        ("prompts.init_words=''", ["prompts.init_words", "at least 1 character"]),
        ("evaluate_epoch=41", ["evaluate_epoch is 41", "optim.epochs is 40"]),
    ],
)
def test_a_bad_override_is_refused_in_one_sentence(override: str, parts: list[str]) -> None:
    message = refused("prompt-ot", override)
    for part in parts:
        assert part in message
    assert "\n" not in message
    assert "pydantic" not in message


def test_no_branch_at_all_is_refused() -> None:
    message = refused("ivlp", "prompts.text_tokens=0", "prompts.vision_tokens=0")
    assert "nothing would learn" in message
    load_recipe("ivlp", ["prompts.text_tokens=0"])


def test_an_unknown_recipe_names_the_nearest() -> None:
    assert "Did you mean 'prompt-ot'?" in refused("promptot")


def test_a_recipe_file_takes_defaults_and_its_own_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("optim:\n  lr: 1e-3\n", encoding="utf-8")
    recipe = load_recipe(path, ["optim.epochs=7"])
    assert (recipe.name, recipe.optim.lr, recipe.optim.epochs) == ("mine", 1e-3, 7)
    assert recipe.objective.preservation == "ot"


def test_an_empty_section_takes_its_defaults(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("name:\noptim:\n  # lr: 1\n", encoding="utf-8")
    assert load_recipe(path, ["optim.epochs=7"]).optim.epochs == 7
    assert load_recipe(path).name == "mine"


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("optim: {lrr: 1}", "optim.lr"),
        ("optimiser: {lr: 1}", "Unknown recipe key 'optimiser'"),
        ("optim: 3", "'optim' is 3; it should hold keys and values"),
        ("- 1", "keys and values"),
        ("", "keys and values"),
        ("a: [1", "not valid YAML"),
        ("optim: !!python/object/apply:os.getcwd []", "not valid YAML"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    assert part in refused(path)
    assert part in refused(path, "optim.epochs=3")


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert "UTF-8" in refused(tmp_path / "bytes.yaml")


def test_a_recipe_survives_json_and_yaml(tmp_path: Path) -> None:
    recipe = load_recipe("prompt-ot", ["optim.lr=3e-7", "data.shots=null"])
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    path = tmp_path / "saved.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump()), encoding="utf-8")
    assert load_recipe(path) == recipe


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_recipe("ivlp").optim.lr = 1.0  # type: ignore[misc]
