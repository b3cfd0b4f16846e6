"""Entropic plans against POT, closed forms and finite differences."""

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
    solve_exact,
    solve_sinkhorn,
    squared_euclidean,
)


@pytest.fixture(autouse=True)
def _no_silent_non_convergence():
    with warnings.catch_warnings():
        warnings.simplefilter("error", ConvergenceWarning)
        yield


def random_problem(rows, columns, seed, dtype=torch.float64, zeros=0):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(rows, columns, generator=generator, dtype=dtype)

    def weights(size):
        values = torch.rand(size, generator=generator, dtype=dtype) + 0.05
        values[: min(zeros, size - 1)] = 0
        return values / values.sum()

    return TransportProblem(cost, weights(rows), weights(columns))


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    zeros=st.integers(0, 3),
    epsilon=st.sampled_from([0.05, 0.2, 2.0]),
    seed=st.integers(0, 10**6),
)
def test_matches_pot(rows, columns, zeros, epsilon, seed):
    problem = random_problem(rows, columns, seed, zeros=zeros)
    result = solve_sinkhorn(
        problem, epsilon, relative=False, max_iterations=50_000, tolerance=1e-11
    )
    source, target = (weights.numpy() for weights in problem.marginals)
    kept_rows, kept_columns = source > 0, target > 0  # POT's log of zero is NaN
    expected = np.zeros((rows, columns))
    expected[np.ix_(kept_rows, kept_columns)] = ot.sinkhorn(
        source[kept_rows],
        target[kept_columns],
        problem.cost.numpy()[np.ix_(kept_rows, kept_columns)],
        epsilon,
        method="sinkhorn_log",
        numItermax=50_000,
        stopThr=1e-11,
    )
    np.testing.assert_allclose(result.plan, expected, atol=1e-9)
    np.testing.assert_allclose(result.plan.sum(dim=1), source, atol=1e-10)
    np.testing.assert_allclose(result.plan.sum(dim=0), target, atol=1e-10)
    assert result.marginal_error <= 2e-11
    assert result.converged


def test_values_and_potentials_agree():
    problem = random_problem(6, 9, 0, zeros=2)
    result = solve_sinkhorn(problem, 0.1, relative=False, tolerance=1e-12)
    source, target = problem.marginals
    independent = source[:, None] * target
    divergence = torch.special.xlogy(result.plan, result.plan / independent).nansum()
    primal = (result.plan * problem.cost).sum() + 0.1 * divergence
    torch.testing.assert_close(result.value, (result.plan * problem.cost).sum())
    torch.testing.assert_close(result.regularised_value, primal)
    f, g = result.potentials
    density = torch.exp((f[:, None] + g - problem.cost) / result.epsilon)
    torch.testing.assert_close(result.plan, independent * density)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_default_tolerance_is_reached_in_fp32(dtype):
    cost = squared_euclidean(torch.randn(50, 32).to(dtype), torch.randn(40, 32).to(dtype))
    result = solve_sinkhorn(TransportProblem(cost))
    assert result.plan.dtype == torch.float32
    assert result.converged
    assert result.marginal_error <= 2e-4
    assert result.iterations % 10 == 0


def test_epsilon_relative_to_the_mean_cost():
    problem = random_problem(5, 7, 1)
    source, target = problem.marginals
    mean_cost = source @ problem.cost @ target
    relative = solve_sinkhorn(problem, 0.1)
    torch.testing.assert_close(relative.epsilon, 0.1 * mean_cost)
    absolute = solve_sinkhorn(problem, 0.1 * mean_cost.item(), relative=False)
    torch.testing.assert_close(relative.plan, absolute.plan)
    scaled = TransportProblem(1000 * problem.cost, source, target)
    torch.testing.assert_close(solve_sinkhorn(scaled, 0.1).plan, relative.plan)


def test_between_the_exact_and_the_independent_plan():
    problem = TransportProblem(random_problem(6, 6, 3).cost)
    exact = solve_exact(problem)
    plans = [
        solve_sinkhorn(problem, epsilon, max_iterations=20_000)
        for epsilon in (0.02, 0.1, 0.5, 100.0)
    ]
    torch.testing.assert_close(plans[0].plan, exact.plan, atol=1e-3, rtol=0)
    torch.testing.assert_close(
        plans[-1].plan, torch.full_like(exact.plan, 1 / 36), atol=1e-3, rtol=0
    )
    entropies = [plan.entropy.item() for plan in plans]
    values = [exact.value.item() - 1e-6, *(plan.value.item() for plan in plans)]
    assert entropies == sorted(entropies)
    assert 0.05 < entropies[2] < 0.95
    assert values == sorted(values)


def test_gradient_of_the_regularised_value_by_finite_differences():
    """The plan is free to change under the differences, and constant in the backward pass."""
    problem = random_problem(4, 5, 0, zeros=1)
    source, target = problem.marginals

    def regularised(cost):
        problem = TransportProblem(cost, source, target)
        return solve_sinkhorn(problem, 0.2, relative=False, tolerance=1e-13).regularised_value

    cost = problem.cost.clone().requires_grad_()
    assert torch.autograd.gradcheck(regularised, (cost,))
    result = solve_sinkhorn(TransportProblem(cost, source, target), 0.2, relative=False)
    (by_value,) = torch.autograd.grad(result.value, cost)
    assert torch.equal(by_value, result.plan)


@pytest.mark.parametrize("size", [1, 4])
def test_points_that_all_coincide(size):
    cost = torch.zeros(size, size, requires_grad=True)
    result = solve_sinkhorn(TransportProblem(cost))
    torch.testing.assert_close(result.plan, torch.full((size, size), 1 / size**2))
    assert result.value == 0
    assert result.regularised_value.item() == pytest.approx(0, abs=1e-30)
    result.value.backward()
    assert cost.grad.isfinite().all()


def test_duplicated_points_share_their_mass():
    x = torch.tensor([[0.0], [0.0], [5.0]])
    plan = solve_sinkhorn(TransportProblem(squared_euclidean(x, x)), 0.01).plan
    torch.testing.assert_close(plan[:2, :2], torch.full((2, 2), 1 / 6), atol=1e-4, rtol=0)


def test_costs_far_beyond_exp_stay_finite():
    cost = 1e4 * random_problem(6, 6, 5, dtype=torch.float32).cost
    result = solve_sinkhorn(TransportProblem(cost), 30.0, relative=False, max_iterations=20_000)
    assert result.plan.isfinite().all()
    assert result.marginal_error < 1e-3


def test_warns_when_it_stops_early():
    problem = random_problem(20, 20, 0)
    with pytest.warns(ConvergenceWarning, match="did not reach a marginal error of 1e-09 in 10"):
        result = solve_sinkhorn(problem, 0.005, max_iterations=10, tolerance=1e-9)
    assert not result.converged
    assert result.iterations == 10
    assert result.marginal_error > 1e-9
    assert result.plan.sum() == pytest.approx(1)


@pytest.mark.parametrize(
    "options", [{"epsilon": 0.0}, {"epsilon": -1.0}, {"max_iterations": 0}, {"tolerance": 0.0}]
)
def test_refuses_options(options):
    with pytest.raises(PromptotError, match="above zero"):
        solve_sinkhorn(TransportProblem(torch.ones(2, 2)), **options)


def test_refuses_what_is_not_finite():
    with pytest.raises(PromptotError, match="target row 2"):
        solve_sinkhorn(TransportProblem(torch.tensor([[1.0, 1.0, float("inf")]] * 4)))


def test_full_precision_under_autocast():
    problem = random_problem(5, 5, 0, dtype=torch.float32)
    expected = solve_sinkhorn(problem)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = solve_sinkhorn(problem)
    assert torch.equal(result.plan, expected.plan)
    assert torch.equal(result.regularised_value, expected.regularised_value)


def test_over_relaxation_pays_where_plain_updates_are_slow():
    x = torch.randn(16, 16, generator=torch.Generator().manual_seed(0))
    problem = TransportProblem(squared_euclidean(x, x + 1))
    fast = solve_sinkhorn(problem, max_iterations=50_000)
    weights = np.full(16, 1 / 16)
    plan, log = ot.bregman.sinkhorn_log(
        weights, weights, problem.cost.double().numpy(), float(fast.epsilon),
        numItermax=50_000, stopThr=1e-4, log=True,
    )  # fmt: skip
    assert 3 * fast.iterations < log["niter"] < 50_000
    torch.testing.assert_close(fast.plan.double(), torch.from_numpy(plan), atol=1e-3, rtol=0)
