"""The objective alone against stored steps of the reference loss (tests/golden/README.md)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from promptot.objectives import Features, Objective, build_preservation
from promptot.transport import squared_euclidean

GOLDEN = Path(__file__).parents[1] / "golden"
LOGIT_SCALE = 20.0  # exp of the `logit_scale` in tests/golden/weights.py


@pytest.fixture(params=["small_drift", "large_drift"])
def step(request):
    with np.load(GOLDEN / f"reference_step_{request.param}.npz") as arrays:
        return {
            key: torch.as_tensor(array) for key, array in arrays.items() if array.dtype.kind in "fi"
        }


@pytest.fixture
def features(step):
    student = Features(step["image_features"], step["text_features"])
    return student, Features(step["teacher_image_features"], step["teacher_text_features"])


def assert_equal(actual, expected):
    torch.testing.assert_close(actual.double(), expected.double(), rtol=0, atol=1e-5)


def test_cost(step, features):
    student, teacher = (side.joint_rows(step["labels"]) for side in features)
    assert_equal(squared_euclidean(student, teacher, scale=0.5), step["cost"])


def test_every_part_of_the_loss(step, features):
    objective = Objective(build_preservation("ot", eta=0.5), strength=step["lam"].item())
    result = objective(*features, step["labels"], torch.tensor(LOGIT_SCALE))
    assert_equal(result.logits, step["logits"])
    assert_equal(result.plan, step["plan"])
    assert_equal(result.cross_entropy, step["loss_ce"])
    assert_equal(result.preservation, step["loss_ot"])
    assert_equal(result.total, step["loss"])


def test_the_stored_plans_are_the_identity_so_pointwise_agrees(step, features):
    """Even where two of the four images share a label, as in both files."""
    pointwise = build_preservation("pointwise")(*features, step["labels"])
    assert_equal(pointwise.value, step["loss_ot"])
