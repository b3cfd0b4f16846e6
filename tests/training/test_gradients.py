"""ProGrad's rule, against the same in plain words, and the term that goes with it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.objectives import Features, Objective, build_preservation
from promptot.training.gradients import backpropagate
from promptot.training.loss import BatchLoss, Guide


def gradients(first: Tensor, second: Tensor, strength: float, scale: float = 1.0) -> list[Tensor]:
    """Of a loss and a guide whose gradients are given."""
    points = [torch.zeros_like(part, requires_grad=True) for part in (first[0], second[0])]
    total = sum((g * p).sum() for g, p in zip(first, points, strict=True))
    guide = sum((g * p).sum() for g, p in zip(second, points, strict=True))
    loss = BatchLoss(total, torch.zeros(1), Guide(guide, torch.tensor(strength)))
    backpropagate(loss, points, scale)
    return [point.grad for point in points]


@pytest.mark.parametrize("strength", [0.0, 0.8, 1.0])
def test_what_the_guide_would_lose_is_taken_out(strength: float) -> None:
    loss = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0]])
    guide = torch.tensor([[-2.0, 0.5, 1.0], [2.0, 0.5, 1.0]])  # against the first, with the second
    found = gradients(loss, guide, strength)
    g, k = loss[0], guide[0]
    torch.testing.assert_close(found[0], g - strength * (g @ k) / (k @ k) * k)
    torch.testing.assert_close(found[1], loss[1])
    if strength == 1:
        assert abs(float(found[0] @ k)) < 1e-6


def test_a_guide_without_a_direction_changes_nothing() -> None:
    loss = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    found = gradients(loss, torch.zeros(2, 2), 1.0)
    assert torch.equal(torch.stack(found), loss)


def test_a_scale_scales_both() -> None:
    generator = torch.Generator().manual_seed(0)
    loss, guide = (torch.randn(2, 5, generator=generator) for _ in range(2))
    plain, scaled = gradients(loss, guide, 1.0), gradients(loss, guide, 1.0, scale=128.0)
    for one, other in zip(plain, scaled, strict=True):
        assert torch.equal(128 * one, other)


def test_it_is_prograd_written_out() -> None:
    """Cross-entropy with the conflicting part along the distillation's gradient removed."""
    generator = torch.Generator().manual_seed(26)
    image, frozen = (F.normalize(torch.randn(6, 8, generator=generator), dim=1) for _ in range(2))
    text = torch.randn(4, 8, generator=generator)
    labels, scale = torch.tensor([0, 1, 2, 3, 0, 1]), 20.0
    teacher = Features(frozen, F.normalize(torch.randn(4, 8, generator=generator), dim=1))

    context = torch.zeros(8, requires_grad=True)
    own = F.normalize(text + context, dim=1)
    logits = scale * image @ own.T
    soft = (scale * teacher.image @ teacher.text.T).softmax(dim=1)
    fit = torch.autograd.grad(F.cross_entropy(logits, labels), context, retain_graph=True)[0]
    general = torch.autograd.grad(-(soft * logits.log_softmax(1)).sum(1).mean(), context)[0]
    assert fit @ general < 0, "a case in conflict"
    expected = fit - (fit @ general) / (general @ general) * general

    objective = Objective(build_preservation("logits"), 1.0, combine="project")
    student = Features(image, F.normalize(text + context, dim=1))
    result = objective(student, teacher, labels, scale)
    assert torch.equal(result.total, result.cross_entropy)
    loss = BatchLoss(result.total, torch.zeros(1), Guide(result.preservation, result.strength))
    backpropagate(loss, [context])
    torch.testing.assert_close(context.grad, expected, rtol=1e-5, atol=1e-6)
