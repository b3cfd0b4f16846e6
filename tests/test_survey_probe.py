"""The linear probe of a survey: the figure, what it was fitted to, and what is said of it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import ImageTask, load_task
from promptot.data.dividing import hold_out
from promptot.evaluation.metrics import wilson_interval
from promptot.evaluation.scoring import Scores, score
from promptot.inspection.survey_probe import (
    ProbeSettings,
    ProbeSummary,
    draw_for_probe,
    probe,
)
from promptot.inspection.survey_result import ClassSummary, advise
from promptot.inspection.survey_task import survey
from promptot.training.batches import evaluation_loader


@pytest.fixture
def task(photos) -> ImageTask:
    return hold_out(load_task(photos), 0.3)


def scores_of(backbone: Backbone, task: ImageTask) -> Scores:
    model = Student(backbone, None, task.class_names, task.template)
    return score(model, evaluation_loader(backbone, task.test), keep_features=True)


def features_of(backbone: Backbone, examples) -> torch.Tensor:
    images = [backbone.preprocess.test()(example.load()) for example in examples]
    with torch.no_grad():
        return backbone.encode_image(torch.stack(images))


def test_it_is_logistic_regression_on_the_frozen_features(
    task: ImageTask, backbone: Backbone
) -> None:
    settings = ProbeSettings(strength=100.0)
    found = probe(task, backbone, scores_of(backbone, task), settings=settings)
    plain = LogisticRegression(C=100.0, max_iter=5000, tol=1e-6)
    plain.fit(features_of(backbone, task.train), [e.label for e in task.train])
    answers = plain.predict(features_of(backbone, task.test))
    right = sum(int(a == e.label) for a, e in zip(answers, task.test, strict=True))
    assert found is not None
    assert found.accuracy == right / len(task.test)
    assert found.interval == wilson_interval(right, len(task.test))
    assert (found.images, found.most_of_a_class, found.capped) == (16, 32, False)


def test_it_takes_some_images_of_each_class_and_says_so(
    task: ImageTask, backbone: Backbone
) -> None:
    scores = scores_of(backbone, task)
    three = ProbeSettings(most_of_a_class=3)
    read, most = draw_for_probe(task, three)
    assert most == 3
    assert set(Counter(e.label for e in read).values()) == {3}
    assert set(read) <= set(task.train)
    found = probe(task, backbone, scores, settings=three)
    assert found is not None
    assert (found.images, found.most_of_a_class, found.capped) == (12, 3, True)
    many = replace(three, most_images=8)  # many classes: fewer of each
    found = probe(task, backbone, scores, settings=many)
    assert found is not None
    assert (found.images, found.most_of_a_class) == (8, 2)
    found = probe(task, backbone, scores, settings=replace(three, most_images=1))
    assert found is not None
    assert found.images == 4


def test_a_class_without_training_images_counts_as_wrong(
    task: ImageTask, backbone: Backbone
) -> None:
    scores = scores_of(backbone, task)
    fewer = replace(task, train=tuple(e for e in task.train if e.label != 1))
    found, whole = probe(fewer, backbone, scores), probe(task, backbone, scores)
    assert found is not None
    assert whole is not None
    ones = sum(e.label == 1 for e in task.test)
    assert found.images == 12
    assert found.accuracy <= 1 - ones / len(task.test)
    alone = replace(task, train=tuple(e for e in task.train if e.label == 1))
    assert probe(alone, backbone, scores) is None
    assert probe(replace(task, train=()), backbone, scores) is None


def test_a_survey_has_it_in_json_too(photos, backbone: Backbone) -> None:
    (photos / "red" / "bad.png").write_text("not an image")
    seen: list[tuple[str, int, int]] = []
    found = survey(photos, backbone=backbone, progress=lambda *step: seen.append(step))
    assert found.probe is not None
    assert found.probe.images == sum(c.train for c in found.classes)
    assert found.as_json()["probe"]["accuracy"] == found.probe.accuracy
    assert found.as_json()["real_clip"] is None  # not the bundled model
    assert ("linear probe", 16, 16) in seen
    assert survey(photos, backbone=backbone, test_share=0).probe is None


def made_scores(right: int, images: int = 200) -> Scores:
    labels = torch.zeros(images, dtype=torch.long)
    logits = torch.zeros(images, 2)
    logits[torch.arange(images), (torch.arange(images) >= right).long()] = 1
    return Scores(labels, logits, logits, torch.arange(images))


def made_probe(right: int, images: int = 200) -> ProbeSummary:
    return ProbeSummary(right / images, wilson_interval(right, images), 64, 32, False)


@pytest.mark.parametrize(
    ("zero_shot", "probed", "part"),
    [
        (64, 186, "a linear probe gets 61 points more than zero-shot"),
        (20, 60, "wrong mostly too"),
        (150, 186, "a linear probe gets 18 points more"),
        (180, 186, None),
        (186, 150, None),
    ],
)
def test_what_is_said_beside_zero_shot(zero_shot: int, probed: int, part: str | None) -> None:
    classes = [ClassSummary(f"c{i}", (), 16, 0, 100) for i in range(2)]
    _, before = advise(classes, made_scores(zero_shot))
    _, said = advise(classes, made_scores(zero_shot), made_probe(probed))
    assert said[: len(before)] == before
    assert len(said) == len(before) + (part is not None)
    assert part is None or part in said[-1]
