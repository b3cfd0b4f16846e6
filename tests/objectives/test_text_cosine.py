"""KgCoOp's term against a plain computation."""

from __future__ import annotations

import pytest
import torch

from promptot.objectives import Features, TextCosine


def test_against_a_loop_over_classes(random_features, drifted):
    teacher = random_features(4, 7, seed=0, dtype=torch.float64)
    student = drifted(teacher, 0.5)
    cosines = []
    for ours, theirs in zip(student.text.tolist(), teacher.text.tolist(), strict=True):
        dot = sum(a * b for a, b in zip(ours, theirs, strict=True))
        norms = sum(a * a for a in ours) ** 0.5 * sum(b * b for b in theirs) ** 0.5
        cosines.append(dot / norms)
    value = TextCosine()(student, teacher, torch.zeros(4).long(), 20.0).value
    assert value.item() == pytest.approx(1 - sum(cosines) / 7)
    half_square = (student.text - teacher.text).square().sum(dim=1).mean() / 2
    torch.testing.assert_close(value, half_square)


def test_averages_over_images(random_features, per_image):
    teacher = random_features(3, 7, seed=0)
    student = per_image(teacher, drift=0.5)
    labels = torch.zeros(3).long()
    parts = [
        TextCosine()(Features(student.image, text), teacher, labels, 20.0).value
        for text in student.text
    ]
    value = TextCosine()(student, teacher, labels, 20.0).value
    torch.testing.assert_close(value, torch.stack(parts).mean())
