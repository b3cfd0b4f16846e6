"""Unbalanced plans against POT, closed forms and finite differences; their debiased divergence."""

from __future__ import annotations

import warnings

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptot.errors import PromptotError
from promptot.transport import (
    ConvergenceWarning,
    TransportProblem,
    sinkhorn_divergence,
    solve_sinkhorn,
    solve_unbalanced,
    squared_euclidean,
    unbalanced_divergence,
)

TIGHT = {"relative": False, "max_iterations": 50_000, "tolerance": 1e-12}


@pytest.fixture(autouse=True)
def _no_silent_non_convergence():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


def random_problem(rows, columns, seed, zeros=0):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(rows, columns, generator=generator, dtype=torch.float64)

    def weights(size):
        values = torch.rand(size, generator=generator, dtype=torch.float64) + 0.05
        values[: min(zeros, size - 1)] = 0
        return values / values.sum()

    return TransportProblem(cost, weights(rows), weights(columns))


def points(size, seed, width=3, dtype=torch.float64):
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 10),
    columns=st.integers(1, 10),
    zeros=st.integers(0, 3),
    epsilon=st.sampled_from([0.05, 0.5]),
    penalty=st.sampled_from([0.05, 0.5, 5.0]),
    seed=st.integers(0, 10**6),
)
def test_matches_pot(rows, columns, zeros, epsilon, penalty, seed):
    problem = random_problem(rows, columns, seed, zeros)
    result = solve_unbalanced(problem, epsilon, penalty, **TIGHT)
    source, target = (weights.numpy() for weights in problem.marginals)
    kept = np.ix_(source > 0, target > 0)  # POT stops at a column without weight
    plan, log = ot.unbalanced.sinkhorn_unbalanced(
        source[source > 0],
        target[target > 0],
        problem.cost.numpy()[kept],
        epsilon,
        penalty,
        reg_type="kl",
        numItermax=100_000,
        stopThr=1e-14,
        log=True,
    )
    expected = np.zeros((rows, columns))
    expected[kept] = plan
    np.testing.assert_allclose(result.plan, expected, atol=1e-9)
    assert result.value.item() == pytest.approx(log["cost"], abs=1e-9)
    left_out = (epsilon + 2 * penalty) * (1 - plan.sum())  # POT's KL lacks the masses, − p + q
    assert result.regularised_value.item() == pytest.approx(log["total_cost"] + left_out, abs=1e-9)
    assert result.converged


def test_value_potentials_and_mass_agree():
    problem, epsilon, penalty = random_problem(6, 9, 0, zeros=2), 0.1, 0.3
    result = solve_unbalanced(problem, epsilon, penalty, **TIGHT)
    source, target = problem.marginals

    def divergence(p, q):
        return torch.special.xlogy(p, p / q).nansum() - p.sum() + q.sum()

    plan = result.plan
    primal = (
        (plan * problem.cost).sum()
        + epsilon * divergence(plan, source[:, None] * target)
        + penalty * divergence(plan.sum(dim=1), source)
        + penalty * divergence(plan.sum(dim=0), target)
    )
    torch.testing.assert_close(result.regularised_value, primal)
    # The derivative along π ↦ sπ vanishes at the minimum, which ties the value to the mass.
    by_mass = (epsilon + 2 * penalty) * (1 - plan.sum())
    torch.testing.assert_close(result.regularised_value, by_mass)
    f, g = result.potentials
    torch.testing.assert_close(plan.sum(dim=1), source * torch.exp(-f / penalty))
    torch.testing.assert_close(plan.sum(dim=0), target * torch.exp(-g / penalty))
    assert result.marginal_error > 0.01


def test_the_plan_is_the_gradient_of_the_regularised_value():
    problem = random_problem(3, 4, 1)

    def value(cost):
        return solve_unbalanced(
            TransportProblem(cost, *problem.marginals), 0.2, 0.4, **TIGHT
        ).regularised_value

    cost = problem.cost.clone().requires_grad_()
    assert torch.autograd.gradcheck(value, (cost,))
    (gradient,) = torch.autograd.grad(value(cost), cost)
    torch.testing.assert_close(gradient, solve_unbalanced(problem, 0.2, 0.4, **TIGHT).plan)


@pytest.mark.parametrize("penalty", [1e2, 1e6])
def test_a_high_penalty_is_balanced_transport_at_no_higher_price(penalty):
    problem = random_problem(8, 6, 2)
    balanced = solve_sinkhorn(problem, 0.1, **TIGHT)
    result = solve_unbalanced(problem, 0.1, penalty, **TIGHT)
    torch.testing.assert_close(result.plan, balanced.plan, rtol=0, atol=1 / penalty)
    torch.testing.assert_close(
        result.regularised_value, balanced.regularised_value, rtol=0, atol=1 / penalty
    )
    assert result.iterations < 500  # without the step along constants: about penalty / epsilon


def test_a_far_point_is_given_up_and_does_not_disturb_the_others():
    x, y = points(4, 0), points(4, 0) + 0.01
    y[3] += 1000
    problem = TransportProblem(squared_euclidean(x, y))
    plan = solve_unbalanced(problem, 0.01, 1.0, **TIGHT).plan
    assert plan[:, 3].sum() < 1e-9
    assert plan[:3, :3].diagonal().sum() > 0.9 * plan.sum() > 0.6
    balanced = solve_sinkhorn(problem, 0.01).plan
    assert balanced[:, 3].sum().item() == pytest.approx(0.25, abs=1e-4)


def test_relative_to_the_mean_cost():
    problem = random_problem(5, 5, 3)
    larger = TransportProblem(7 * problem.cost, *problem.marginals)
    result, scaled = (solve_unbalanced(each, 0.1, 0.5) for each in (problem, larger))
    torch.testing.assert_close(scaled.plan, result.plan)
    torch.testing.assert_close(scaled.regularised_value, 7 * result.regularised_value)


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 6), (1, 3)])
def test_the_divergence_is_made_of_three_problems(rows, columns):
    x, y = points(rows, 0), points(columns, 1)

    def term(x, y):
        problem = TransportProblem(squared_euclidean(x, y))
        return solve_unbalanced(problem, 2.0, 3.0, **TIGHT).regularised_value

    result = unbalanced_divergence(x, y, 2.0, 3.0, **TIGHT)
    torch.testing.assert_close(result.value, term(x, y) - term(x, x) / 2 - term(y, y) / 2)
    assert result.converged


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_of_the_divergence_by_finite_differences(weighted):
    x, y = points(3, 0, width=2).requires_grad_(), points(4, 1, width=2).requires_grad_()
    weights = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64) if weighted else None

    def value(x, y):
        return unbalanced_divergence(x, y, 1.0, 2.0, source_weights=weights, **TIGHT).value

    assert torch.autograd.gradcheck(value, (x, y))


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 10),
    epsilon=st.sampled_from([0.02, 0.1, 1.0]),
    penalty=st.sampled_from([0.1, 1.0, 100.0]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_zero_with_zero_gradient_at_equality(size, epsilon, penalty, seed, dtype):
    x = points(size, seed, dtype=dtype).requires_grad_()
    precision = 1e-5 if dtype == torch.float32 else 1e-12
    result = unbalanced_divergence(
        x, x.detach().clone(), epsilon, penalty, tolerance=precision, max_iterations=10_000
    )
    result.value.backward()
    scale = max(1, result.plan.epsilon.item() * (1 + penalty / epsilon))
    assert result.value.item() == pytest.approx(0, abs=precision * scale)
    assert x.grad.abs().max() <= 10 * precision


def test_the_plain_value_pulls_even_at_equality():
    """Which is why the divergence, and not it, is offered as a loss."""
    x = points(6, 0).requires_grad_()
    problem = TransportProblem(squared_euclidean(x, x.detach()))
    solve_unbalanced(problem, 0.5, 1.0).regularised_value.backward()
    assert x.grad.abs().max() > 0.01


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    epsilon=st.sampled_from([0.1, 1.0]),
    penalty=st.sampled_from([0.1, 1.0, 10.0]),
    shift=st.sampled_from([0.0, 0.1, 1.0, 100.0]),
    seed=st.integers(0, 10**6),
)
def test_never_negative_and_bounded(rows, columns, epsilon, penalty, shift, seed):
    x, y = points(rows, seed), points(columns, seed + 1) + shift
    result = unbalanced_divergence(x, y, epsilon, penalty, **{**TIGHT, "tolerance": 1e-8})
    assert -1e-9 < result.value < epsilon + 2 * penalty + 1e-9


def test_a_high_penalty_gives_the_balanced_divergence():
    x, y = points(5, 0), points(7, 1)
    balanced = sinkhorn_divergence(x, y, 0.5, **TIGHT).value
    result = unbalanced_divergence(x, y, 0.5, 1e7, **TIGHT).value
    torch.testing.assert_close(result, balanced, rtol=1e-5, atol=0)


def test_duplicates_and_zero_weights_change_nothing():
    x, y = points(3, 0), points(3, 1)
    expected = unbalanced_divergence(x, y, 0.5, 1.0, **TIGHT).value
    twice = unbalanced_divergence(x.repeat(2, 1), y, 0.5, 1.0, **TIGHT).value
    torch.testing.assert_close(twice, expected)
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0], dtype=torch.float64) / 3
    padded = torch.cat([x, points(2, 5)])
    ignored = unbalanced_divergence(padded, y, 0.5, 1.0, source_weights=weights, **TIGHT).value
    torch.testing.assert_close(ignored, expected)


def test_points_that_all_coincide():
    x = torch.ones(4, 3, requires_grad=True)
    result = unbalanced_divergence(x, torch.ones(5, 3))
    result.value.backward()
    assert result.value.item() == pytest.approx(0, abs=1e-30)
    assert torch.equal(x.grad, torch.zeros(4, 3))


def test_sixteen_bits_are_raised():
    x = points(4, 0).bfloat16()
    assert unbalanced_divergence(x, x + 1).value.dtype == torch.float32


def test_refuses_what_is_not_finite():
    x = points(4, 0)
    x[2, 1] = float("nan")
    with pytest.raises(PromptotError, match="source row 2"):
        unbalanced_divergence(x, points(4, 1))


@pytest.mark.parametrize("option", ["epsilon", "marginal_penalty", "tolerance"])
def test_refuses_options(option):
    with pytest.raises(PromptotError, match=f"'{option}' is 0"):
        solve_unbalanced(random_problem(2, 2, 0), **{option: 0.0})


def test_warns_when_it_stops_early():
    x, y = points(8, 0), points(8, 1)
    with pytest.warns(ConvergenceWarning):
        early = solve_unbalanced(TransportProblem(squared_euclidean(x, y)), 1e-3, max_iterations=5)
    assert not early.converged
    with pytest.warns(ConvergenceWarning):
        assert not unbalanced_divergence(x, y, 1e-3, max_iterations=5).converged
