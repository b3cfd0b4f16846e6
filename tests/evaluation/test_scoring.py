"""Scoring the student and the teacher in one pass."""

from __future__ import annotations

import pytest
import torch

from promptot.adaptation import IVLPPrompts, build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data import Batch
from promptot.evaluation.scoring import score
from promptot.recipes import load_recipe

NAMES = ["cat", "hot dog", "great white shark"]


@pytest.fixture
def model(backbone: Backbone) -> Student:
    generator = torch.Generator().manual_seed(0)
    return Student(backbone, IVLPPrompts(64, 128, 4, 2, 4, 2, generator=generator), NAMES)


def make_batches() -> list[Batch]:
    images = torch.randn(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    labels, indices = torch.arange(7) % 3, torch.arange(7)
    columns = zip(images.split(3), labels.split(3), indices.split(3), strict=True)
    return [Batch(*column) for column in columns]


def test_logits_are_those_of_the_features(model: Student) -> None:
    batches = make_batches()
    scores = score(model, batches)
    with torch.no_grad():
        student, teacher = model(torch.cat([batch.images for batch in batches]))
    scale = model.backbone.logit_scale
    torch.testing.assert_close(scores.student, scale * student.image @ student.text.T)
    torch.testing.assert_close(scores.teacher, scale * teacher.image @ teacher.text.T)
    right = (scores.student.argmax(1) == scores.labels).sum().item()
    assert scores.student_accuracy == pytest.approx(right / 7)
    low, high = scores.student_interval
    assert low < right / 7 < high or right in (0, 7)


def test_kept_tokens_and_teacher_give_the_same(model: Student) -> None:
    plain = score(model, make_batches())
    kept = [
        batch._replace(
            images=model.patch_tokens(batch.images), teacher=model.encode_frozen(batch.images)
        )
        for batch in make_batches()
    ]
    again = score(model, kept)
    torch.testing.assert_close(plain.student, again.student)
    torch.testing.assert_close(plain.teacher, again.teacher)


def test_without_prompts_both_are_the_frozen_model(backbone: Backbone) -> None:
    counted: list[int] = []
    scores = score(Student(backbone, None, NAMES), make_batches(), counted.append)
    assert torch.equal(scores.student, scores.teacher)
    assert counted == [3, 3, 1]


def test_nothing_to_score(model: Student) -> None:
    with pytest.raises(ValueError, match="no images"):
        score(model, [])


@pytest.mark.parametrize(
    ("name", "passes"), [("coop", 1), ("kgcoop", 1), ("cocoop", 1), ("ivlp", 2), ("vpt", 2)]
)
def test_the_image_tower_runs_once_an_image_where_no_prompt_is_in_it(
    backbone: Backbone, name: str, passes: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    prompts = build_prompts(load_recipe(name).prompts, backbone, len(NAMES), generator)
    model = Student(backbone, prompts, NAMES)
    with torch.no_grad():
        student, _ = model(torch.cat([batch.images for batch in make_batches()]))
    seen = []
    last = backbone.image_tower.ln_post
    hook = last.register_forward_hook(lambda module, args, pooled: seen.append(len(pooled)))
    scores = score(model, make_batches(), keep_features=True)
    hook.remove()
    assert sum(seen) == 7 * passes
    torch.testing.assert_close(scores.student_images, student.image)
    text = student.text.expand(7, -1, -1)
    expected = model.backbone.logit_scale * torch.einsum("nd,ncd->nc", student.image, text)
    torch.testing.assert_close(scores.student, expected)
