"""λ over the steps: ramps, dual ascent on a budget, and their state."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.objectives import (
    BudgetStrength,
    Features,
    Objective,
    PreservationResult,
    RampStrength,
    build_control,
)


def objective_of(values, control, strength=10.0):
    """An objective whose preservation term takes these values, step by step."""
    remaining = iter(values)

    def term(student, teacher, labels, logit_scale):
        return PreservationResult(torch.tensor(next(remaining)) + 0 * student.image.sum())

    return Objective(term, strength, control=control)


def run(objective, steps):
    features = Features(torch.eye(2), torch.eye(2))
    return [objective(features, features, torch.arange(2), 1.0) for _ in range(steps)]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("constant", [10.0, 10.0, 10.0, 10.0]),
        ("ramp", [0.0, 5.0, 10.0, 10.0]),
        ("ramp-down", [10.0, 5.0, 0.0, 0.0]),
    ],
)
def test_scheduled_strength_is_used_and_reported(name, expected):
    results = run(objective_of([0.5] * 4, build_control(name, steps=3)), 4)
    assert [result.strength.item() for result in results] == expected
    for result, strength in zip(results, expected, strict=True):
        assert result.total.item() == pytest.approx(result.cross_entropy.item() + strength * 0.5)


def test_a_ramp_of_one_step_is_at_its_end():
    assert RampStrength(1).factor == 1


def test_dual_ascent_by_hand():
    values = [0.3, 0.3, 0.05, 0.0]
    results = run(objective_of(values, BudgetStrength(budget=0.1, rate=0.5)), 4)
    # Each step adds 10 · 0.5 · (p / 0.1 − 1) after it, never going below zero.
    expected = [10.0, 20.0, 30.0, 27.5]
    assert [result.strength.item() for result in results] == pytest.approx(expected)


def test_strength_does_not_fall_below_zero_and_comes_back():
    control = BudgetStrength(budget=1.0, rate=0.5)
    for _ in range(5):
        control.update(torch.tensor(0.0))
    assert control.factor == 0
    control.update(torch.tensor(2.0))
    assert control.factor == 0.5


def test_the_mean_of_a_controlled_term_meets_its_budget():
    """Minimise ½(x − 1)² + λ x² with x at its best for each λ: x = 1 / (1 + 2λ)."""
    control, values = BudgetStrength(budget=0.04, rate=0.02), []
    for _ in range(1000):
        values.append((1 / (1 + 2 * 0.5 * control.factor)) ** 2)
        control.update(values[-1])
    assert torch.stack(values[-100:]).mean().item() == pytest.approx(0.04, rel=0.01)
    assert 0.5 * control.factor.item() == pytest.approx(2.0, rel=0.01)  # x = 0.2


@pytest.mark.parametrize("name", ["ramp", "budget"])
def test_state_goes_on_exactly(name):
    values = torch.rand(8, generator=torch.Generator().manual_seed(0)).tolist()
    whole = objective_of(values, build_control(name, steps=8, budget=0.3))
    first = run(whole, 3)
    state = whole.state_dict()
    rest = run(whole, 5)
    resumed = objective_of(values[3:], build_control(name, steps=8, budget=0.3))
    resumed.load_state_dict(state)
    again = run(resumed, 5)
    assert [r.strength for r in again] == [r.strength for r in rest]
    assert len({r.strength.item() for r in first + rest}) == 8


def test_no_gradient_through_the_strength():
    x = torch.tensor(0.5, requires_grad=True)
    control = BudgetStrength(budget=0.1)
    control.update(x)
    assert not control.factor.requires_grad


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BudgetStrength(0.0), "'budget' is 0.0"),
        (lambda: BudgetStrength(1.0, rate=-1.0), "'rate' is -1.0"),
        (lambda: RampStrength(0), "'steps' is 0"),
        (lambda: RampStrength(3, first=-1.0), "ramp from -1.0"),
        (lambda: RampStrength(3, last=float("nan")), "ramp from 0.0 to nan"),
        (lambda: build_control("rampe", steps=3), "Did you mean 'ramp'"),
    ],
)
def test_refuses(build, message):
    with pytest.raises(PromptotError, match=message):
        build()
