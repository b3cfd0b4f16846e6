"""SigLIP's loss against PyTorch's binary cross-entropy, and how probabilities come of logits."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from promptot.objectives import (
    Features,
    JointTransport,
    Objective,
    PromptSRC,
    fit_loss,
    probabilities,
)

LABELS = torch.tensor([0, 2, 1, 2])
SCALE, BIAS = 20.0, -4.0


def binary(logits, labels):
    """Each class for itself, by PyTorch's binary cross-entropy."""
    own = F.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return F.binary_cross_entropy_with_logits(logits, own, reduction="sum") / len(logits)


def leaves(features):
    return Features(features.image.requires_grad_(), features.text.requires_grad_())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("own_text", [False, True], ids=["shared", "per image"])
def test_values_and_gradients(random_features, drifted, per_image, dtype, own_text):
    teacher = random_features(4, 3, seed=0, dtype=dtype)
    student = drifted(teacher, 0.3)
    student = leaves(per_image(student, 0.2) if own_text else student)
    result = Objective(None, 0.0, fit="sigmoid")(student, teacher, LABELS, SCALE, BIAS)
    equation = "bd,bcd->bc" if own_text else "bd,cd->bc"
    logits = SCALE * torch.einsum(equation, student.image, student.text) + BIAS
    expected = binary(logits, LABELS)
    torch.testing.assert_close(result.logits, logits.detach())
    torch.testing.assert_close(result.total, expected)
    assert torch.equal(result.total, result.cross_entropy)
    parts = student.image, student.text
    for ours, theirs in zip(
        torch.autograd.grad(result.total, parts), torch.autograd.grad(expected, parts), strict=True
    ):
        torch.testing.assert_close(ours, theirs)


def test_by_hand():
    logits = torch.tensor([[1.0, -2.0, 0.5], [0.0, 3.0, -1.0]])
    signs = [[-1, -1, 1], [1, -1, -1]]
    expected = sum(
        math.log1p(math.exp(-sign * logit))
        for row, own in zip(logits.tolist(), signs, strict=True)
        for logit, sign in zip(row, own, strict=True)
    )
    assert fit_loss(logits, torch.tensor([2, 0]), "sigmoid").item() == pytest.approx(expected / 2)


@pytest.mark.parametrize("fit", ["softmax", "sigmoid"])
def test_extreme_logits_have_a_finite_loss_and_gradient(fit):
    logits = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 0.0]], requires_grad=True)
    loss = fit_loss(logits, torch.tensor([0, 0]), fit)
    (gradient,) = torch.autograd.grad(loss, logits)
    assert loss.isfinite()
    assert gradient.isfinite().all()


def test_a_softmax_is_the_cross_entropy_and_does_not_see_the_bias(random_features, drifted):
    teacher = random_features(4, 3, seed=0)
    student = drifted(teacher, 0.3)
    plain = Objective(None, 0.0)(student, teacher, LABELS, SCALE)
    moved = Objective(None, 0.0)(student, teacher, LABELS, SCALE, BIAS)
    assert torch.equal(plain.total, F.cross_entropy(plain.logits, LABELS))
    torch.testing.assert_close(moved.total, plain.total)
    torch.testing.assert_close(moved.logits, plain.logits + BIAS)


@pytest.mark.parametrize("term", [JointTransport(), PromptSRC()])
def test_the_terms_beside_it_are_the_same(random_features, drifted, term):
    """PromptSRC's divergence stays one of softmaxes, in which a bias cancels out."""
    teacher = random_features(4, 3, seed=0)
    student = drifted(teacher, 0.3)
    softmax = Objective(term, 2.0)(student, teacher, LABELS, SCALE)
    sigmoid = Objective(term, 2.0, fit="sigmoid")(student, teacher, LABELS, SCALE, BIAS)
    assert torch.equal(sigmoid.preservation, softmax.preservation)
    torch.testing.assert_close(sigmoid.total, sigmoid.cross_entropy + 2 * softmax.preservation)
    ours, theirs = ((SCALE * each.image @ each.text.T + BIAS) for each in (student, teacher))
    kl = F.kl_div(ours.log_softmax(1), theirs.softmax(1), reduction="sum") / ours.numel()
    alone = PromptSRC(0.0, 0.0)(student, teacher, LABELS, SCALE).value
    torch.testing.assert_close(alone, kl)


def test_sixteen_bits_are_raised(random_features):
    features = random_features(4, 3, seed=0, dtype=torch.bfloat16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = Objective(None, 0.0, fit="sigmoid")(features, features, LABELS, SCALE, BIAS)
    raised = features.at_least_float32()
    expected = binary(SCALE * raised.image @ raised.text.T + BIAS, LABELS)
    assert result.total.dtype == torch.float32
    torch.testing.assert_close(result.total, expected)


def test_probabilities():
    logits = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(probabilities(logits), logits.softmax(dim=1))
    assert torch.equal(probabilities(logits[0], "softmax"), logits[0].softmax(dim=0))
    each = probabilities(logits, "sigmoid")
    torch.testing.assert_close(each, 1 / (1 + (-logits).exp()))
    assert not torch.allclose(each.sum(dim=1), torch.ones(5))
