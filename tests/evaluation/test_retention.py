"""Retention: nothing is lost where nothing moved, and what moved is seen."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from promptot.adaptation import build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import load_folder
from promptot.evaluation.retention import Share, measure_retention, paired_change
from promptot.evaluation.scoring import Scores, score
from promptot.recipes import load_recipe
from promptot.training.batches import evaluation_loader

WORDS = ("red", "boat", "cloud", "ladder", "spoon", "tiger")


def model_of(backbone: Backbone, names: tuple[str, ...], *overrides: str) -> Student:
    config = load_recipe("ivlp", overrides).prompts
    prompts = build_prompts(config, backbone, len(names), torch.Generator().manual_seed(1))
    return Student(backbone, prompts, names)


def scored(model: Student, photos: Path) -> dict[str, Scores]:
    task = load_folder(photos)
    loader = evaluation_loader(model.backbone, task.train)
    return {"test": score(model.for_classes(task.class_names), loader, keep_features=True)}


def test_the_frozen_model_keeps_everything(backbone: Backbone, photos: Path) -> None:
    names = load_folder(photos).class_names
    model = Student(backbone, None, names)
    found = measure_retention(model, scored(model, photos), {"test": names}, WORDS)
    assert found.image is not None
    assert found.text is not None
    assert found.anchors is not None
    for cosine in (found.image, found.text, found.anchors.text):
        assert cosine.lowest == pytest.approx(1, abs=1e-5)
    assert found.anchors.words == 5  # "red" is a class of the task
    assert found.anchors.told_apart == Share(5, 5)
    assert found.anchors.agreement == Share(24, 24)
    assert found.anchors.frozen_accuracy == found.anchors.adapted_accuracy


def test_what_moved_is_seen_and_is_what_the_features_say(backbone: Backbone, photos: Path) -> None:
    names = load_folder(photos).class_names
    model = model_of(backbone, names)
    scores = scored(model, photos)
    with torch.no_grad():
        for parameter in model.prompts.parameters():
            parameter += 3 * torch.randn(
                parameter.shape, generator=torch.Generator().manual_seed(2)
            )
        scores = scored(model, photos)
        found = measure_retention(model, scores, {"test": names}, WORDS)
        words = model.for_classes([*names, *WORDS[1:]])
        moved, frozen = words.encode_classes(), words.teacher_text
        images = scores["test"].student_images
    assert found.anchors is not None
    assert found.image is not None
    assert found.image.mean < 0.999
    cosines = (moved * frozen).sum(dim=1)
    assert found.anchors.text.mean == pytest.approx(float(cosines[4:].mean()), abs=1e-5)
    assert found.text.lowest == pytest.approx(float(cosines[:4].min()), abs=1e-5)
    right = ((images @ moved.T).argmax(dim=1) == scores["test"].labels).sum()
    assert found.anchors.adapted_accuracy == Share(int(right), 24)
    assert found.as_json()["anchor_kept"] == found.anchors.told_apart.value


def test_base_and_novel_are_measured_together(backbone: Backbone, photos: Path) -> None:
    task = load_folder(photos)
    model = model_of(backbone, task.base().class_names)
    parts = {"base": task.base(), "novel": task.novel()}
    scores = {
        name: score(
            model.for_classes(part.class_names),
            evaluation_loader(backbone, part.train),
            keep_features=True,
        )
        for name, part in parts.items()
    }
    names = {name: part.class_names for name, part in parts.items()}
    apart = measure_retention(model, scores, names, WORDS)
    whole = measure_retention(model, scored(model, photos), {"test": task.class_names}, WORDS)
    assert apart.as_json() == pytest.approx(whole.as_json(), abs=1e-5)
    # A part of another part adds nothing.
    scores |= scored(model, photos)
    overlapping = measure_retention(model, scores, {**names, "test": task.class_names}, WORDS)
    assert overlapping.as_json() == pytest.approx(whole.as_json(), abs=1e-5)


def test_class_specific_prompts_have_no_other_words(backbone: Backbone, photos: Path) -> None:
    names = load_folder(photos).class_names
    model = model_of(backbone, names, "prompts.class_specific=true")
    found = measure_retention(model, scored(model, photos), {"test": names}, WORDS)
    assert found.anchors is None
    assert found.text is not None
    assert found.image is not None


def test_without_images_words_are_still_compared(backbone: Backbone) -> None:
    model = model_of(backbone, ("red", "blue"))
    found = measure_retention(model, {}, {}, WORDS)
    assert found.image is None
    assert found.anchors is not None
    assert found.anchors.agreement is None
    assert found.anchors.words == 5


def test_the_paired_interval_is_agresti_and_min() -> None:
    right, wrong = [0.0, 1.0], [1.0, 0.0]
    # Of 10 images: 4 gained, 1 lost, 3 both right, 2 both wrong.
    teacher = torch.tensor([wrong] * 4 + [right] + [right] * 3 + [wrong] * 2)
    student = torch.tensor([right] * 4 + [wrong] + [right] * 3 + [wrong] * 2)
    labels = torch.ones(10, dtype=torch.long)
    change, (low, high) = paired_change(Scores(labels, student, teacher, labels))
    assert change == pytest.approx(0.3)
    gained, lost, n = 4.5, 1.5, 12
    middle = (gained - lost) / n
    spread = 1.96 / n * math.sqrt(gained + lost - (gained - lost) ** 2 / n)
    assert (low, high) == pytest.approx((middle - spread, middle + spread))


def test_no_change_still_has_an_interval() -> None:
    logits = torch.eye(4)
    change, (low, high) = paired_change(Scores(torch.arange(4), logits, logits, torch.arange(4)))
    assert change == 0
    assert low < 0 < high
