"""Several names of one class: their features are averaged, in training and in prediction."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

import promptot
from promptot.adaptation import build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import load_task
from promptot.errors import PromptotError
from promptot.recipes import load_recipe
from promptot.runs.adapter import load_adapter

NAMES = ("cat", "red fox", "owl")
SYNONYMS = {"red fox": ("fox", "vulpes vulpes")}
DESIGNS = ["ivlp", "cocoop", "maple", "zero-shot-7"]


def build(
    backbone: Backbone, recipe: str, names: tuple[str, ...], synonyms: dict[str, tuple[str, ...]]
) -> Student:
    config = load_recipe(recipe)
    prompts = None
    if config.trains:
        generator = torch.Generator().manual_seed(0)
        prompts = build_prompts(config.prompts, backbone, len(names), generator)
    return Student(backbone, prompts, names, synonyms=synonyms)


def student_text(model: Student, image: Tensor) -> Tensor:
    with torch.no_grad():
        return model(image)[0].text


@pytest.mark.parametrize("recipe", DESIGNS)
def test_a_class_is_the_mean_of_its_names(backbone: Backbone, recipe: str) -> None:
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    several = build(backbone, recipe, NAMES, SYNONYMS)
    apart = build(backbone, recipe, ("cat", "red fox", "fox", "vulpes vulpes", "owl"), {})
    for own, single in (
        (student_text(several, image), student_text(apart, image)),
        (several.teacher_text, apart.teacher_text),
        (several.encode_classes(several.encode_images(image)).detach(), student_text(apart, image)),
    ):
        mean = F.normalize(single[..., 1:4, :].mean(dim=-2, keepdim=True), dim=-1)
        expected = torch.cat([single[..., :1, :], mean, single[..., 4:, :]], dim=-2)
        torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


def test_class_specific_prompts_serve_all_names_of_their_class(backbone: Backbone) -> None:
    model = build(backbone, "coop-class-specific", NAMES, SYNONYMS)
    context = model.injection().text_tokens[0]  # one a name that is read
    assert len(context) == 5
    assert all(bool((context[i] == context[1]).all()) for i in (2, 3))
    assert not bool((context[0] == context[1]).all()) or bool((context[4] == context[0]).all())
    some = model.for_classes(["owl", "red fox"])
    torch.testing.assert_close(some.encode_classes(), model.encode_classes()[[2, 1]])


def test_gradients_reach_the_prompts_through_every_name(backbone: Backbone) -> None:
    model = build(backbone, "ivlp", NAMES, SYNONYMS)
    model.encode_classes()[1].sum().backward()
    assert model.prompts is not None
    assert any(p.grad is not None and bool(p.grad.any()) for p in model.prompts.parameters())


def test_a_synonym_that_is_asked_for_itself_is_a_class_of_its_own(backbone: Backbone) -> None:
    model = build(backbone, "ivlp", NAMES, SYNONYMS)
    assert model.for_classes(["red fox", "Fox"]).read_names == ["red fox", "vulpes vulpes", "Fox"]
    assert model.for_classes(["cat", "dog"]).read_names == ["cat", "dog"]
    other = model.for_classes(["cat"], synonyms={"cat": ("kitten",)})
    assert other.read_names == ["cat", "kitten"]


def test_from_a_mapping_file_to_a_prediction(
    backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    mapping = {"red": "ruby", "green_apple": ["green apple", "granny smith"]}
    (tmp_path / "names.json").write_text(json.dumps(mapping))
    run = promptot.fit(
        photos,
        tmp_path / "run",
        backbone=backbone,
        names=tmp_path / "names.json",
        template="a picture of a {}.",
        shots=2,
        overrides=["optim.epochs=1"],
        device="cpu",
    )
    assert run.task.class_names == ("blue", "green apple", "ruby", "yellow")
    card, _ = load_adapter(tmp_path / "run" / "adapter")
    assert card.synonyms == {"green apple": ("granny smith",)}
    assert card.template == "a picture of a {}."
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["task"]["synonyms"] == {"green apple": ["granny smith"]}

    classifier = promptot.load(tmp_path / "run", backbone)
    torch.testing.assert_close(
        classifier.text_features(card.class_names), run.model.encode_classes().detach()
    )
    result = promptot.evaluate(
        tmp_path / "run", photos, names=tmp_path / "names.json", backbone=backbone, device="cpu"
    )
    assert set(result.scores) == {"all classes"}
    image = next(photos.glob("*/*.png"))
    found = classifier.predict([image], [["cat", "kitten"], "ruby"], top_k=2)[0]
    assert set(found.class_names) == {"cat", "ruby"}
    alone = classifier.predict([image], ["cat", "ruby"], top_k=2)[0]
    assert found.probabilities != alone.probabilities
    with pytest.raises(PromptotError, match="comes twice"):
        classifier.predict([image], [["cat", "kitten"], "kitten"])


def test_other_synonyms_make_another_run(
    backbone: Backbone, make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    from promptot.experiments import PROTOCOLS
    from promptot.experiments.cells import fingerprint
    from promptot.experiments.scenarios import load_sources

    folder = make_photos()
    description = tmp_path / "d.yaml"
    prints = set()
    for names in ("", "names: {red: [red, ruby]}\n", "template: 'a {}.'\n"):
        description.write_text(f"data: {folder.name}\nname: colours\n{names}")
        sources = load_sources([str(description)])
        assert replace(load_task(folder), name="x").class_names == sources[0].task.class_names
        scenario = PROTOCOLS["base-to-novel"].scenarios(sources, [str(description)], [1], "test")[0]
        prints.add(fingerprint(scenario))
    assert len(prints) == 3
