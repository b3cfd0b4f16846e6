"""The linear probe against an independent solution of the same problem."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.optimize
import torch
import torch.nn.functional as F

from promptot.adaptation import linear_head as probe
from promptot.adaptation.linear_head import LinearHead, fit_linear_probe
from promptot.errors import PromptotError


def make_features(
    classes: int, each: int, noise: float = 0.3, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    centres = torch.randn(classes, 12, generator=torch.Generator().manual_seed(99))
    labels = torch.arange(classes).repeat_interleave(each)
    noise_ = noise * torch.randn(len(labels), 12, generator=generator)
    return F.normalize(F.normalize(centres[labels], dim=1) + noise_, dim=1), labels


@pytest.mark.parametrize("classes", [2, 4])
def test_it_minimises_the_penalised_cross_entropy(classes: int) -> None:
    """min over W, b of ½‖W‖² + C · Σ CE, solved by SciPy with numerical gradients of torch."""
    features, labels = make_features(classes, 6)
    head = fit_linear_probe(features, labels, classes, strengths=(3.0,))
    x, rows = features.double(), classes if classes > 2 else 1

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.tensor(flat, requires_grad=True)
        weight, bias = values[: rows * 12].view(rows, 12), values[rows * 12 :]
        logits = x @ weight.T + bias
        if rows == 1:  # two classes: one logit, against 0
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        total = 0.5 * weight.square().sum() + 3.0 * F.cross_entropy(logits, labels, reduction="sum")
        (gradient,) = torch.autograd.grad(total, values)
        return float(total.detach()), gradient.numpy()

    found = scipy.optimize.minimize(
        loss, np.zeros(rows * 13), jac=True, method="BFGS", options={"gtol": 1e-8}
    )
    weight, bias = (
        torch.tensor(found.x[: rows * 12]).view(rows, 12),
        torch.tensor(found.x[rows * 12 :]),
    )
    logits = x @ weight.T + bias
    if rows == 1:
        logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
    ours = head(features).double()
    assert (ours.softmax(1) - logits.softmax(1)).abs().max() < 2e-3


def test_the_penalty_is_chosen_on_validation_images() -> None:
    features, labels = make_features(3, 8, noise=1.0)
    others = make_features(3, 30, noise=1.0, seed=1)
    chosen = fit_linear_probe(features, labels, 3, validation=others)
    accuracies = []
    for strength in probe.STRENGTHS:
        head = fit_linear_probe(features, labels, 3, validation=others, strengths=(strength,))
        accuracies.append((head(others[0]).argmax(1) == others[1]).float().mean().item())
    best = (chosen(others[0]).argmax(1) == others[1]).float().mean().item()
    assert best == max(accuracies)
    assert max(accuracies) > min(accuracies)


@pytest.mark.parametrize("each", [1, 2, 7])
def test_it_learns_from_few_images_without_validation(each: int) -> None:
    features, labels = make_features(4, each, noise=0.2)
    test, truth = make_features(4, 20, noise=0.2, seed=2)
    head = fit_linear_probe(features, labels, 4)
    assert (head(test).argmax(1) == truth).float().mean() > 0.9
    again = fit_linear_probe(features, labels, 4)
    assert torch.equal(head.weight, again.weight)


def test_one_class() -> None:
    head = fit_linear_probe(torch.randn(3, 5), torch.zeros(3, dtype=torch.long), 1)
    assert head(torch.randn(2, 5)).shape == (2, 1)


def test_a_head_is_rebuilt_by_its_arguments() -> None:
    head = LinearHead(torch.randn(3, 5), torch.randn(3))
    again = LinearHead.empty(**head.arguments)
    again.load_state_dict(head.state_dict())
    x = torch.randn(2, 5)
    assert torch.equal(again(x), head(x))
    assert torch.equal(head(x, rows=[2, 0]), head(x)[:, [2, 0]])
    assert not any(parameter.requires_grad for parameter in head.parameters())


def test_what_can_not_be_fitted_is_named() -> None:
    features = torch.randn(2, 5)
    with pytest.raises(PromptotError, match="Class number 2 has no image"):
        fit_linear_probe(features, torch.tensor([0, 2]), 3)
    with pytest.raises(PromptotError, match="not finite"):
        fit_linear_probe(features / 0, torch.tensor([0, 1]), 2)


@pytest.mark.parametrize("strength", [1.0, 1e2, 1e3, 1e4, 1e5])
@pytest.mark.parametrize("classes", [2, 12])
def test_hardly_any_penalty_is_minimised_as_well(strength: float, classes: int) -> None:
    """Against BFGS from the solution on, which stops far later."""
    features, labels = make_features(classes, 5)
    x, rows = features.double(), classes if classes > 2 else 1
    fitted = probe._fit(x.numpy(), labels.numpy(), strength)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        values = torch.tensor(flat, requires_grad=True)
        weight, bias = values[: rows * 12].view(rows, 12), values[rows * 12 :]
        logits = x @ weight.T + bias
        if rows == 1:  # two classes: one logit, against 0
            logits = torch.cat([torch.zeros_like(logits), logits], dim=1)
        fit = F.cross_entropy(logits, labels, reduction="sum")
        total = fit + weight.square().sum() / (2 * strength)
        (gradient,) = torch.autograd.grad(total, values)
        return float(total.detach()), gradient.numpy()

    start = np.concatenate([fitted.coef_.ravel(), fitted.intercept_])
    best = scipy.optimize.minimize(
        objective, start, jac=True, method="BFGS", options={"gtol": 1e-12, "maxiter": 2000}
    )
    assert objective(start)[0] <= 1.001 * best.fun


def test_seeds_of_more_than_32_bits() -> None:
    features, labels = make_features(3, 4)
    fit_linear_probe(features, labels, classes=3, seed=2**62 + 1)
