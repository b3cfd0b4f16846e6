"""A run that fits each class by a sigmoid, from end to end."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import promptot
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data.readers.folder import load_folder
from promptot.errors import PromptotError
from promptot.evaluation.scoring import score
from promptot.recipes import complete_values, describe, load_recipe
from promptot.runs.learning import build_objective, untrained_model
from promptot.runs.report.answers import answer_details, worst_mistakes
from promptot.training.batches import evaluation_loader

NAMES = ("cat", "red panda", "bicycle")
SIGMOID = "objective.fit=sigmoid"


# the recipe


def test_a_softmax_goes_without_saying() -> None:
    plain, sigmoid = load_recipe("prompt-ot"), load_recipe("prompt-ot", [SIGMOID])
    assert "objective.fit" not in describe(plain)
    assert describe(plain) == describe(load_recipe("prompt-ot", ["objective.fit=softmax"]))
    assert describe(sigmoid) == {**describe(plain), "objective.fit": "sigmoid"}
    assert "fit" not in complete_values(plain)["objective"]
    assert complete_values(sigmoid)["objective"]["fit"] == "sigmoid"
    assert describe(load_recipe("zero-shot", [SIGMOID]))["objective.fit"] == "sigmoid"
    assert load_recipe(sigmoid, ["objective=promptsrc"]).objective.fit == "sigmoid"
    with pytest.raises(PromptotError, match="'softmax' or 'sigmoid'"):
        load_recipe("prompt-ot", ["objective.fit=probit"])


def test_a_linear_probe_is_a_softmax() -> None:
    with pytest.raises(PromptotError, match="a linear probe is fitted by multinomial"):
        load_recipe("linear-probe", [SIGMOID])


@pytest.mark.parametrize("recipe", ["prompt-ot", "zero-shot"])
def test_a_backbone_without_a_bias_refuses_it(
    photos: Path, tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    for name in ("encode_patches", "encode_text"):  # nothing is computed
        monkeypatch.setattr(backbone, name, lambda *_: pytest.fail("it computes"))
    arguments = {"backbone": backbone, "recipe": recipe, "overrides": [SIGMOID], "shots": 2}
    with pytest.raises(PromptotError) as caught:
        promptot.fit(photos, tmp_path / "run", **arguments)
    assert "has no logit bias" in caught.value.problem
    assert "near 1 for every class" in caught.value.problem
    assert "objective.fit=softmax" in caught.value.fix
    assert "open_clip:ViT-B-16-SigLIP2-256/webli" in caught.value.fix
    assert not (tmp_path / "run").exists()


def test_a_benchmark_and_a_tuning_refuse_it_too(
    photos: Path, tmp_path: Path, clip_file: Path
) -> None:
    named = {"backbone": f"openai:{clip_file}", "device": "cpu"}
    with pytest.raises(PromptotError, match="has no logit bias"):
        promptot.tune(
            photos, out=tmp_path / "tuned", overrides=[SIGMOID], shots=1, fewest_images=1, **named
        )
    with pytest.raises(PromptotError, match="method 'ivlp.*has no logit bias"):
        promptot.benchmark(
            "few-shot", tmp_path / "b", methods=f"ivlp[{SIGMOID}]", tasks=[str(photos)], seeds=[1],
            shots=[1], **named,
        )  # fmt: skip


# a run


@pytest.fixture(scope="module")
def run(biased: Backbone, tmp_path_factory: pytest.TempPathFactory) -> promptot.Run:
    place = tmp_path_factory.mktemp("sigmoid")
    generator = np.random.default_rng(0)
    for name, colour in {"red": (200, 30, 30), "green apple": (40, 180, 60)}.items():
        (place / "photos" / name).mkdir(parents=True)
        for index in range(4):
            pixels = np.clip(colour + generator.normal(0, 25, (40, 40, 3)), 0, 255)
            image = Image.fromarray(pixels.astype(np.uint8))
            image.save(place / "photos" / name / f"{index}.png")
    return promptot.fit(
        place / "photos", place / "run", backbone=biased, recipe="prompt-ot", shots=2, epochs=8,
        overrides=[SIGMOID, "objective.strength=0.1", "optim.lr=0.02", "optim.batch_size=2"],
        report=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def images(run: promptot.Run) -> list[str]:
    return [example.path for example in run.task.train]


def test_the_loss_falls(run: promptot.Run) -> None:
    losses = [record.cross_entropy for record in run.log.epochs]
    assert losses[-1] < 0.8 * losses[0]


def test_the_objective_is_of_the_logits_with_their_bias(biased: Backbone) -> None:
    recipe = load_recipe("prompt-ot", [SIGMOID])
    model = untrained_model(biased, NAMES, recipe)
    assert model.fit == "sigmoid"
    objective = build_objective(recipe, steps=1)
    pixels = torch.rand(3, 3, *[biased.preprocess.resolution] * 2)
    labels = torch.arange(3)
    with torch.no_grad():
        student, teacher = model(pixels)
        result = objective(student, teacher, labels, biased.logit_scale, biased.logit_bias)
        logits = model.logits(student.image)
    own = torch.eye(3)
    expected = torch.nn.functional.binary_cross_entropy_with_logits(logits, own, reduction="sum")
    torch.testing.assert_close(result.cross_entropy, expected / 3)


def test_it_gives_the_same_probabilities_again(
    run: promptot.Run, biased: Backbone, images: list[str]
) -> None:
    assert run.manifest.recipe["objective.fit"] == run.adapter.card.recipe["objective.fit"]
    loaded = promptot.load(run.folder, biased)
    assert loaded.model.fit == loaded.card.fit == "sigmoid"
    names = [*run.model.class_names, "zebra"]
    for asked in (None, names):
        ours, theirs = (each.probabilities(images, asked)[0] for each in (run.classifier, loaded))
        assert torch.equal(ours, theirs)
    two, three = (loaded.probabilities(images, asked)[0] for asked in (None, names))
    torch.testing.assert_close(three[:, :2], two)  # each class is for itself
    assert not torch.allclose(two.sum(dim=1), torch.ones(len(images)), atol=1e-2)


def test_none_of_these(run: promptot.Run, images: list[str], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    own = run.classifier.classify(images, top_k=2)
    other = run.classifier.classify([*images, tmp_path / "text.png"], ["suspension bridge"])
    assert all(found.fit == "sigmoid" for found in own)
    for found in (*own, *other[:-1]):
        assert found.none_of_these == (found.probabilities[0] < 0.5)
    assert any(found.none_of_these for found in other)
    assert other[-1].problem
    assert not other[-1].none_of_these
    plain = promptot.Prediction("a.png", ("cat", "dog", "cow"), (0.4, 0.3, 0.3))
    assert not plain.none_of_these  # a softmax can't say so


def test_a_card_that_does_not_say_is_a_softmax(run: promptot.Run, biased: Backbone) -> None:
    card = run.adapter.card
    recipe = {key: value for key, value in card.recipe.items() if key != "objective.fit"}
    older = promptot.Classifier.of(
        run.adapter._replace(card=card.model_copy(update={"recipe": recipe})), biased
    )
    assert older.model.fit == "softmax"


def test_its_answers(run: promptot.Run, biased: Backbone) -> None:
    assert run.folder is not None
    scores = run.scores["test"]
    assert scores.fit == "sigmoid"
    rows = list(csv.DictReader((run.folder / "predictions.csv").open(encoding="utf-8")))
    for key, logits in (("adapted", scores.student), ("zero_shot", scores.teacher)):
        expected = logits.sigmoid().amax(dim=1).tolist()
        found = [float(row[f"{key}_probability"]) for row in rows]
        assert found == pytest.approx(expected, abs=1e-4)
    details = answer_details("prompt-ot", scores, run.task, "")
    confidence = scores.student.sigmoid().amax(dim=1)
    assert np.nansum(details.calibrations[1].reliability.counts) == len(confidence)
    task = load_folder(run.folder.parent / "photos")
    wrong = Student(biased, None, ("suspension bridge", "zebra"), fit="sigmoid")
    found = score(wrong, evaluation_loader(biased, task.examples[:2], 0))
    mistakes = worst_mistakes("x", found, run.task)
    for mistake in mistakes:
        sure = mistake.answers[1].likeliest[0][1]
        assert ("none of these" in mistake.note) == (sure < 0.5)


def test_runs_that_differ_in_it_are_not_merged(
    run: promptot.Run, tmp_path: Path, biased: Backbone
) -> None:
    recipe = {k: v for k, v in run.adapter.card.recipe.items() if k != "objective.fit"}
    card = run.adapter.card.model_copy(update={"recipe": recipe})
    run.adapter._replace(card=card).save(tmp_path / "other")
    with pytest.raises(PromptotError, match="what the logits are fitted by: sigmoid and softmax"):
        promptot.merge([run.folder, tmp_path / "other"], tmp_path / "mean")


def test_the_estimator(run: promptot.Run, biased: Backbone, images: list[str]) -> None:
    loaded = promptot.PromptClassifier.load(run.folder, biased)
    found = loaded.predict_proba(images)
    expected, _ = run.classifier.probabilities(images)
    np.testing.assert_allclose(found, expected.double().numpy())


def test_a_zero_shot_run(make_photos: Callable[..., Path], biased: Backbone) -> None:
    """The frozen model's own probabilities, as SigLIP's are meant."""
    found = promptot.fit(
        make_photos(images=2), backbone=biased, recipe="zero-shot", overrides=[SIGMOID]
    )
    assert found.model.fit == found.adapter.card.fit == "sigmoid"
    assert found.manifest.objective.preservation == "none"
    assert torch.equal(found.scores["test"].student, found.scores["test"].teacher)
