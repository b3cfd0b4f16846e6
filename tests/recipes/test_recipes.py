from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from pydantic import ValidationError

from promptot.errors import PromptotError
from promptot.objectives import build_control, build_preservation, build_vocabulary
from promptot.recipes import (
    Recipe,
    complete_values,
    describe,
    list_recipes,
    load_recipe,
    recipe_keys,
)
from promptot.recipes.schema import (
    PUBLISHED_STRENGTH,
    ExactOTConfig,
    ExactVocabularyConfig,
    TextCosineConfig,
)
from promptot.recipes.templates import named_templates, teacher_templates

# prompts, (lr, epochs, batch size, warm-up rate); what is left out has no effect
PEERS: dict[str, tuple[dict[str, object], tuple[float, ...]]] = {
    "zero-shot": ({"design": "none"}, ()),
    "zero-shot-7": ({"design": "none"}, ()),
    "zero-shot-80": ({"design": "none"}, ()),
    "linear-probe": ({"design": "linear-probe"}, ()),
    "coop": (
        {"design": "ivlp", "text_tokens": 4, "text_depth": 1, "init_words": "a photo of a"}
        | {"vision_tokens": 0, "class_specific": False},
        (0.002, 50, 32, 1e-5),
    ),
    "coop-16": (
        {"design": "ivlp", "text_tokens": 16, "text_depth": 1, "init_words": None}
        | {"vision_tokens": 0, "class_specific": False},
        (0.002, 50, 32, 1e-5),
    ),
    "coop-class-specific": (
        {"design": "ivlp", "text_tokens": 16, "text_depth": 1, "init_words": None}
        | {"vision_tokens": 0, "class_specific": True},
        (0.002, 50, 32, 1e-5),
    ),
    "cocoop": (
        {"design": "cocoop", "text_tokens": 4, "init_words": "a photo of a"},
        (0.002, 10, 1, 1e-5),
    ),
    "kgcoop": (
        {"design": "ivlp", "text_tokens": 4, "text_depth": 1, "init_words": "a photo of a"}
        | {"vision_tokens": 0, "class_specific": False},
        (0.002, 100, 128, 1e-5),
    ),
    "prograd": (
        {"design": "ivlp", "text_tokens": 16, "text_depth": 1, "init_words": "a photo of a"}
        | {"fill": "zeros", "vision_tokens": 0, "class_specific": False},
        (0.002, 100, 32, 1e-5),
    ),
    "vpt": (
        {"design": "ivlp", "text_tokens": 0, "vision_tokens": 4, "vision_depth": 9},
        (0.0025, 20, 4, 1e-5),
    ),
    "ivlp": (
        {"design": "ivlp", "text_tokens": 4, "text_depth": 9, "vision_tokens": 4}
        | {"vision_depth": 9, "init_words": "a photo of a", "class_specific": False},
        (0.0025, 20, 4, 1e-5),
    ),
    "maple": (
        {"design": "maple", "text_tokens": 2, "text_depth": 9, "init_words": "a photo of a"}
        | {"cloned_projections": False},
        (0.0035, 5, 4, 1e-5),
    ),
    "promptsrc": (
        {"design": "ivlp", "text_tokens": 4, "text_depth": 9, "vision_tokens": 4}
        | {"vision_depth": 9, "init_words": "a photo of a", "class_specific": False},
        (0.0025, 20, 4, 1e-5),
    ),
}
# how they differ from prompt-ot
FORMS: dict[str, dict[str, object]] = {
    "pointwise": {"objective.preservation": "pointwise"},
    "prompt-ot-entropic": {"objective.solver": "sinkhorn", "objective.epsilon": 0.05},
    "prompt-ot-sinkhorn": {"objective.solver": "sinkhorn-divergence", "objective.epsilon": 0.05},
    "prompt-ot-unbalanced": {
        "objective.solver": "unbalanced",
        "objective.epsilon": 0.05,
        "objective.marginal_penalty": 1.0,
    },
    "prompt-ot-partial": {"objective.solver": "partial", "objective.mass": 0.9},
    "prompt-ot-queue": {"objective.queue": 256},
    "prompt-ot-separate": {"objective.rows": "separate"},
    "prompt-ot-vocabulary": {
        "vocabulary.comparison": "ot",
        "vocabulary.strength": 10.0,
        "vocabulary.eta": 0.5,
        "vocabulary.solver": "sinkhorn-divergence",
        "vocabulary.epsilon": 0.05,
        "vocabulary.words": None,
        "vocabulary.per_step": 64,
    },
}


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
    changes = {"clip-lora", "lora-ot"}  # see tests/adaptation/test_lora.py
    assert set(list_recipes()) == {*PEERS, *FORMS, *changes, "prompt-ot"}


def section(recipe: Recipe, name: str) -> dict[str, object]:
    prefix = f"{name}."
    shown = describe(recipe).items()
    return {key.removeprefix(prefix): v for key, v in shown if key.startswith(prefix)}


@pytest.mark.parametrize("name", PEERS)
def test_a_peer_is_as_published(name: str) -> None:
    recipe = load_recipe(name)
    prompts, schedule = PEERS[name]
    assert section(recipe, "prompts") == prompts
    if not schedule:
        assert not recipe.trains
        assert not section(recipe, "optim")
        return
    optim = recipe.optim
    assert (optim.lr, optim.epochs, optim.batch_size, optim.warmup_lr) == schedule
    assert (optim.momentum, optim.weight_decay, optim.warmup_epochs) == (0.9, 5e-4, 1)
    assert recipe.data.shots == 16
    assert recipe.evaluate_epoch is None
    objectives: dict[str, dict[str, object]] = {
        "kgcoop": {"preservation": "text-cosine", "strength": 8.0, "control": "constant"},
        "prograd": {"preservation": "logits", "strength": 1.0, "control": "constant"}
        | {"combine": "project"},
        "promptsrc": {"preservation": "promptsrc", "strength": 1.0, "control": "constant"}
        | {"text_weight": 25.0, "image_weight": 10.0, "logit_weight": 1.0},
    }
    assert section(recipe, "objective") == objectives.get(name, {"preservation": "none"})
    gaussian = {"rule": "gaussian", "mean": 15.0, "sd": 1.0}
    assert section(recipe, "ensembling") == (gaussian if name == "promptsrc" else {"rule": "none"})
    assert recipe.data.templates == ("imagenet-60" if name == "promptsrc" else "one")


@pytest.mark.parametrize("name", FORMS)
def test_a_form_of_transport_differs_from_prompt_ot_in_what_it_says(name: str) -> None:
    def settings(recipe: Recipe) -> dict[str, object]:
        return {key: value for key, value in describe(recipe).items() if "." in key}

    published, form = settings(load_recipe("prompt-ot")), settings(load_recipe(name))
    changed = {k: v for k, v in form.items() if k not in published or published[k] != v}
    assert changed == FORMS[name]


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
        "objective.rows": "joint",
        "objective.solver": "exact",
        "objective.queue": None,
        "objective.control": "constant",
        "vocabulary.comparison": "none",
        "ensembling.rule": "none",
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
        "data.templates": "one",
        "data.smallest_crop": 0.08,
        "data.teacher": "online",
        "data.views": None,
        "evaluate_epoch": None,
    }


TERMS = ["none", "pointwise", "ot", "text-cosine", "logits", "promptsrc"]
SOLVERS = ["exact", "sinkhorn", "sinkhorn-divergence", "unbalanced", "partial"]


@pytest.mark.parametrize(
    "overrides",
    [
        *([f"objective={term}"] for term in TERMS),
        *([f"objective.solver={solver}"] for solver in SOLVERS),
        *([f"objective.rows={rows}"] for rows in ("image", "text", "separate")),
        ["objective.solver=sinkhorn-divergence", "objective.epsilon=0.3", "objective.queue=64"],
    ],
)
def test_the_objective_can_be_built_from_its_options(overrides: list[str]) -> None:
    objective = load_recipe("prompt-ot", overrides).objective
    term = build_preservation(objective.preservation, **objective.options())
    assert (term is None) == (objective.preservation == "none")


@pytest.mark.parametrize("comparison", ["none", "pointwise", "ot"])
@pytest.mark.parametrize("solver", SOLVERS)
def test_the_vocabulary_term_can_be_built_from_its_options(comparison: str, solver: str) -> None:
    recipe = load_recipe("ivlp", [f"vocabulary={comparison}", f"vocabulary.solver={solver}"])
    term = build_vocabulary(recipe.vocabulary.comparison, **recipe.vocabulary.options())
    assert (term is None) == (comparison == "none")


def test_the_controls_can_be_built() -> None:
    for control in ("constant", "ramp", "ramp-down", "budget"):
        objective = load_recipe("prompt-ot", [f"objective.control={control}"]).objective
        built = build_control(objective.control, steps=10, budget=objective.budget)
        assert (built is None) == (control == "constant")
        assert ("budget" in objective.used_fields()) == (control == "budget")


def test_a_term_brings_its_published_strength() -> None:
    def strength(name: str, *overrides: str) -> float:
        return load_recipe(name, overrides).objective.strength

    assert TextCosineConfig(preservation="text-cosine").strength == 8
    assert ExactOTConfig().strength == 10
    assert strength("maple", "objective=ot") == 10
    assert strength("prompt-ot", "objective=promptsrc") == 1
    assert strength("prompt-ot", "objective=text-cosine", "objective.strength=3") == 3
    assert strength("prompt-ot", "objective.strength=3", "objective=text-cosine") == 3
    assert strength("prompt-ot", "objective.strength=null") == 10
    # pointwise and ot measure in the same units, so λ is kept
    assert strength("prompt-ot", "objective.strength=3", "objective=pointwise") == 3


def test_a_strength_in_a_file_is_kept_for_the_same_term(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("objective: {strength: 4.0}\n", encoding="utf-8")
    assert load_recipe(path).objective.strength == 4
    assert load_recipe(path, ["objective=ot"]).objective.strength == 4
    assert load_recipe(path, ["objective=promptsrc"]).objective.strength == 1


def test_a_section_is_short_for_its_choice() -> None:
    short = ["prompts=maple", "objective=ot", "vocabulary=ot", "ensembling=gaussian"]
    long = ["prompts.design=maple", "objective.preservation=ot", "vocabulary.comparison=ot"]
    recipe = load_recipe("ivlp", short)
    assert recipe == load_recipe("ivlp", [*long, "ensembling.rule=gaussian"])
    assert recipe.prompts.design == "maple"
    assert recipe.prompts.text_tokens == 4


def test_only_values_with_an_effect_are_shown() -> None:
    cases = {
        ("prompts=maple",): {"prompts.vision_tokens", "prompts.class_specific"},
        ("prompts=cocoop",): {"prompts.text_depth", "prompts.vision_depth"},
        ("prompts.text_tokens=0",): {"prompts.init_words", "prompts.text_depth"},
        ("prompts.vision_tokens=0",): {"prompts.vision_depth"},
        ("prompts=linear-probe",): {"objective.preservation", "optim.lr", "ensembling.rule"},
        ("objective=none",): {"objective.strength", "objective.control", "objective.rows"},
        ("objective=promptsrc",): {"objective.eta", "objective.rows", "objective.queue"},
        ("objective.solver=partial",): {"objective.epsilon", "objective.marginal_penalty"},
        ("ensembling=uniform",): {"ensembling.mean", "ensembling.sd"},
        ("vocabulary=pointwise",): {"vocabulary.solver", "vocabulary.epsilon"},
        ("data.templates=imagenet-7",): {"data.template"},
    }
    for overrides, hidden in cases.items():
        assert hidden <= set(recipe_keys())
        assert not hidden & set(describe(load_recipe("prompt-ot", overrides))), overrides
    shown = describe(load_recipe("prompt-ot", ["vocabulary=ot", "ensembling=gaussian"]))
    assert {"vocabulary.per_step", "vocabulary.solver", "ensembling.mean"} <= set(shown)


def test_template_ensembles() -> None:
    full, source, few = (named_templates(f"imagenet-{count}") for count in (80, 60, 7))
    assert (len(full), len(source), len(few)) == (80, 60, 7)
    assert set(source) < set(full)
    assert set(few) < set(full)
    # PromptSRC's list has these, and none of the rest of the 80
    assert {"a photo of a {}.", "a photo of many {}.", "itap of the {}."} < set(source)
    assert not {"a plushie {}.", "a tattoo of the {}.", "itap of a {}."} & set(source)
    assert teacher_templates("imagenet-7", "the {}.") == few
    recipe = load_recipe("ivlp", ["data.templates=['a {}.', 'the {}.']"])
    assert recipe.data.templates == ("a {}.", "the {}.")
    assert teacher_templates(recipe.data.templates, "{}") == ("a {}.", "the {}.")
    assert teacher_templates("one", "{}") == "{}"


def test_zero_shot_trains_nothing() -> None:
    recipe = load_recipe("zero-shot")
    assert not recipe.trains
    assert load_recipe("ivlp").trains
    assert set(describe(recipe)) == {
        "name",
        "summary",
        "paper",
        "prompts.design",
        "data.template",
    } | {"data.templates"}


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
    assert recipe.objective.options() == {"eta": 0.5, "rows": "joint"}
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
        ("objective.lambda=1", ["Valid: objective.preservation, objective.fit"]),
        ("optim=sgd", ["section", "optim.lr"]),
        ("objective=oot", ["'objective.preservation' is 'oot'"]),
        ("objective.queue=5000", ["objective.queue", "less than or equal to 4096"]),
        ("objective.mass=1.5", ["objective.mass", "less than or equal to 1"]),
        ("ensembling.sd=0", ["ensembling.sd", "greater than 0"]),
        ("data.templates=imagenet-9", ["'imagenet-9'", "imagenet-60"]),
        ("data.templates=[]", ["imagenet-60"]),
        ("data.templates=[a photo]", ["exactly once"]),
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
        ("objective.preservation=oot", ["'oot'", "'none', 'pointwise', 'ot'"]),
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


def test_designs_refuse_what_they_cannot_do() -> None:
    assert "starts from text tokens" in refused("vpt", "prompts=maple")
    assert "one text context for all classes" in refused("coop-class-specific", "prompts=cocoop")
    assert "anchor words have no" in refused("coop-class-specific", "vocabulary=ot")


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
    (tmp_path / "bytes.yaml").write_bytes(b"caf\xe9: 1")
    assert "UTF-8" in refused(tmp_path / "bytes.yaml")
    (tmp_path / "half.yaml").write_bytes(
        b"\xff\xfe\x00"
    )  # the mark of UTF-16, and half a character
    assert "UTF-16" in refused(tmp_path / "half.yaml")


def test_a_recipe_survives_json_and_yaml(tmp_path: Path) -> None:
    recipe = load_recipe("prompt-ot", ["optim.lr=3e-7", "data.shots=null"])
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    path = tmp_path / "saved.yaml"
    path.write_text(yaml.safe_dump(recipe.model_dump()), encoding="utf-8")
    assert load_recipe(path) == recipe
    listed = load_recipe("ivlp", ["data.templates=['a {}.']", "vocabulary=ot"])
    assert Recipe.model_validate_json(listed.model_dump_json()) == listed
    assert listed.vocabulary == ExactVocabularyConfig(comparison="ot")


def test_a_recipe_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        load_recipe("ivlp").optim.lr = 1.0  # type: ignore[misc]


def test_every_term_has_a_published_strength() -> None:
    from promptot.objectives.build_objective import PRESERVATIONS

    assert set(PUBLISHED_STRENGTH) == set(PRESERVATIONS)
    assert all(isinstance(strength, float) for strength in PUBLISHED_STRENGTH.values())


def test_values_of_another_choice_are_checked_and_left_out() -> None:
    recipe = load_recipe("prompt-ot", ["objective=pointwise", "objective.mass=0.5"])
    assert not hasattr(recipe.objective, "mass")
    assert "objective.mass" in refused("prompt-ot", "objective=pointwise", "objective.mass=5")
    assert "objective.mass" in refused("ivlp", "objective.mass=most")


def test_a_loaded_recipe_is_what_its_file_is(tmp_path: Path) -> None:
    """Values without effect count for keys, and have one once the choice is another."""
    path = tmp_path / "mine.yaml"
    path.write_text("objective: {preservation: none, eta: 0.7, strength: 3.0}\n", encoding="utf-8")
    loaded = load_recipe(path)
    assert complete_values(load_recipe(loaded)) == complete_values(loaded)
    assert complete_values(loaded)["objective"]["eta"] == 0.7
    assert load_recipe(loaded, ["objective=ot"]) == load_recipe(path, ["objective=ot"])
    assert load_recipe(loaded, ["objective=ot"]).objective.eta == 0.7


def test_keys_of_cells_and_runs_are_made_of_every_value() -> None:
    """Hashes made before a section had kinds stay: of every shipped recipe, at that time."""
    made = json.loads((Path(__file__).parent / "complete_values.json").read_text("utf-8"))
    assert {name: complete_values(load_recipe(name)) for name in made} == made
    assert set(made) == set(list_recipes())
