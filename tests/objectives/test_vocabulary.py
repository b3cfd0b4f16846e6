"""The vocabulary term: classes and anchor words against the frozen ones."""

from __future__ import annotations

import ot
import pytest
import torch

from promptot.objectives import Features, Objective, VocabularyTerm, build_vocabulary


def test_pointwise_and_exact_by_hand(random_features, drifted):
    teacher = random_features(2, 5, seed=0, words=4, dtype=torch.float64)
    student = drifted(teacher, 1.0)
    ours, theirs = (torch.cat([f.text, f.vocabulary]) for f in (student, teacher))
    cost = 0.3 * (ours[:, None] - theirs).square().sum(dim=2)
    pointwise = build_vocabulary("pointwise", eta=0.3)(student, teacher)
    assert pointwise.value.item() == pytest.approx(cost.diagonal().mean().item())
    assert pointwise.plan is None
    exact = build_vocabulary("ot", eta=0.3)(student, teacher)
    assert exact.value.item() == pytest.approx(ot.emd2([], [], cost.numpy()))
    assert exact.plan.shape == (9, 9)


def test_without_anchor_words_it_is_the_classes(random_features, drifted):
    teacher = random_features(2, 5, seed=0)
    student = drifted(teacher, 0.5)
    value = build_vocabulary("pointwise")(student, teacher).value
    drift = (student.text - teacher.text).square().sum(dim=1)
    torch.testing.assert_close(value, drift.mean() / 2)


def test_text_that_depends_on_the_image_is_averaged(random_features, drifted, per_image):
    teacher = random_features(3, 5, seed=0, words=4)
    student = per_image(drifted(teacher, 0.5), drift=0.5)
    term = build_vocabulary("ot", solver="sinkhorn-divergence")
    parts = [
        term(Features(student.image[i : i + 1], student.text[i], student.vocabulary), teacher)
        for i in range(3)
    ]
    result = term(student, teacher)
    for name in ("value", "off_diagonal_mass", "plan_entropy"):
        expected = torch.stack([getattr(part, name) for part in parts]).mean()
        torch.testing.assert_close(getattr(result, name), expected)
    assert result.plan is None


def test_in_the_objective(random_features, drifted):
    teacher = random_features(4, 3, seed=0, words=6)
    student = drifted(teacher, 0.2)
    text, vocabulary = student.text.requires_grad_(), student.vocabulary.requires_grad_()
    term = build_vocabulary("ot", solver="sinkhorn-divergence")
    labels = torch.tensor([0, 1, 2, 0])
    result = Objective(None, 0.0, vocabulary=term, vocabulary_strength=3.0)(
        student, teacher, labels, 20.0
    )
    alone = term(student, teacher)
    torch.testing.assert_close(result.vocabulary, alone.value)
    torch.testing.assert_close(result.total, result.cross_entropy + 3 * alone.value)
    assert result.vocabulary_off_diagonal_mass == alone.off_diagonal_mass > 0
    assert result.vocabulary_plan_entropy == alone.plan_entropy > 0
    assert result.off_diagonal_mass is None
    result.total.backward()
    assert (vocabulary.grad.norm(dim=1) > 0).all()
    assert (text.grad.norm(dim=1) > 0).all()


def test_none_is_no_term():
    assert build_vocabulary("none") is None
    assert isinstance(build_vocabulary("pointwise"), VocabularyTerm)
