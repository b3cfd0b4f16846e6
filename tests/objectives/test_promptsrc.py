"""PromptSRC's losses against a plain computation."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from promptot.errors import PromptotError
from promptot.objectives import Features, PromptSRC


@pytest.mark.parametrize("weights", [{}, {"text_weight": 2.0, "image_weight": 0.0}])
def test_against_numpy(weights, random_features, drifted):
    teacher = random_features(4, 7, seed=0, dtype=torch.float64)
    student = drifted(teacher, 0.3)
    v, t, frozen_v, frozen_t = (
        part.numpy() for part in (student.image, student.text, teacher.image, teacher.text)
    )
    ours = log_softmax(20 * v @ t.T, axis=1)
    theirs = log_softmax(20 * frozen_v @ frozen_t.T, axis=1)
    divergence = (np.exp(theirs) * (theirs - ours)).sum() / ours.size
    expected = (
        weights.get("text_weight", 25) * np.abs(t - frozen_t).sum() / t.size
        + weights.get("image_weight", 10) * np.abs(v - frozen_v).sum() / v.size
        + divergence
    )
    value = PromptSRC(**weights)(student, teacher, torch.zeros(4).long(), 20.0).value
    assert value.item() == pytest.approx(expected)
    assert divergence > 0.01


def test_zero_at_the_teacher(random_features):
    teacher = random_features(4, 7, seed=0)
    value = PromptSRC()(teacher, teacher, torch.zeros(4).long(), 100.0).value
    assert value.item() == pytest.approx(0, abs=1e-6)


def test_text_that_depends_on_the_image(random_features, drifted, per_image):
    teacher = random_features(3, 5, seed=0)
    student = per_image(drifted(teacher, 0.2), drift=0.5)
    labels = torch.zeros(3).long()
    parts = [
        PromptSRC()(
            Features(student.image[i : i + 1], student.text[i]),
            Features(teacher.image[i : i + 1], teacher.text),
            labels[:1],
            20.0,
        ).value
        for i in range(3)
    ]
    value = PromptSRC()(student, teacher, labels, 20.0).value
    torch.testing.assert_close(value, torch.stack(parts).mean())


@pytest.mark.parametrize("weight", [-1.0, float("nan"), float("inf")])
def test_refuses_a_weight(weight):
    with pytest.raises(PromptotError, match=f"'logit_weight' is {weight}"):
        PromptSRC(logit_weight=weight)
