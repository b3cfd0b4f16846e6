"""Partial plans against POT, brute force and finite differences."""

from __future__ import annotations

import itertools

import numpy as np
import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptot.errors import PromptotError
from promptot.transport import TransportProblem, solve_exact, solve_partial, squared_euclidean


def random_problem(rows, columns, seed, zeros=0, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    cost = torch.rand(rows, columns, generator=generator, dtype=dtype)

    def weights(size):
        values = torch.rand(size, generator=generator, dtype=dtype) + 0.05
        values[: min(zeros, size - 1)] = 0
        return values / values.sum()

    return TransportProblem(cost, weights(rows), weights(columns))


@settings(max_examples=40, deadline=None)
@given(
    rows=st.integers(1, 10),
    columns=st.integers(1, 10),
    zeros=st.integers(0, 3),
    mass=st.sampled_from([0.01, 0.3, 0.9, 0.999]),
    scale=st.sampled_from([1e-6, 1.0, 1e3]),
    seed=st.integers(0, 10**6),
)
def test_matches_pot(rows, columns, zeros, mass, scale, seed):
    problem = random_problem(rows, columns, seed, zeros)
    problem = TransportProblem(scale * problem.cost, *problem.marginals)
    result = solve_partial(problem, mass)
    source, target = problem.marginals
    expected = ot.partial.partial_wasserstein(
        source.numpy(), target.numpy(), problem.cost.numpy(), mass
    )
    np.testing.assert_allclose(result.plan, expected, atol=1e-9)
    assert result.plan.sum().item() == pytest.approx(mass, abs=1e-9)
    assert (result.plan.sum(dim=1) <= source + 1e-12).all()
    assert (result.plan.sum(dim=0) <= target + 1e-12).all()
    assert result.value.item() == pytest.approx((expected * problem.cost.numpy()).sum())
    assert result.converged


@pytest.mark.parametrize("moved", [1, 2, 3])
def test_a_whole_number_of_points_is_the_best_partial_matching(moved):
    size = 5
    cost = random_problem(size, size, 7).cost
    best = min(
        sum(cost[i, j] for i, j in zip(rows, columns, strict=True)).item() / size
        for rows in itertools.combinations(range(size), moved)
        for columns in itertools.permutations(range(size), moved)
    )
    result = solve_partial(TransportProblem(cost), moved / size)
    assert result.value.item() == pytest.approx(best)


def test_all_of_the_mass_is_exact_transport():
    problem = random_problem(4, 6, 0)
    torch.testing.assert_close(solve_partial(problem, 1.0).plan, solve_exact(problem).plan)


def test_gradient_by_finite_differences_and_none_for_what_is_left_out():
    cost = random_problem(4, 4, 1).cost.requires_grad_()

    def value(cost):
        return solve_partial(TransportProblem(cost), 0.6).value

    assert torch.autograd.gradcheck(value, (cost,))
    x = torch.eye(3).requires_grad_()
    y = torch.eye(3) + torch.tensor([[0.1], [0.2], [5.0]])
    solve_partial(TransportProblem(squared_euclidean(x, y)), 0.6).value.backward()
    assert (x.grad[:2] != 0).all()
    assert (x.grad[2] == 0).all()


@pytest.mark.parametrize("mass", [0.25, 0.6, 1.0])
def test_nothing_moves_between_equal_points_even_duplicates(mass):
    x = torch.ones(4, 3, requires_grad=True)
    result = solve_partial(TransportProblem(squared_euclidean(x, torch.ones(4, 3))), mass)
    result.value.backward()
    assert result.value == 0
    assert result.off_diagonal_mass == 0
    assert result.plan.sum().item() == pytest.approx(mass)
    assert torch.equal(x.grad, torch.zeros(4, 3))


def test_duplicates_that_drift_together_stay():
    y = torch.eye(4)[[0, 0, 1, 2]]
    x = y + torch.tensor([[0.02], [0.02], [0.0], [0.5]])
    result = solve_partial(TransportProblem(squared_euclidean(x, y)), 0.7)
    assert result.off_diagonal_mass == 0
    torch.testing.assert_close(result.plan.diagonal(), torch.tensor([0.25, 0.2, 0.25, 0.0]))


def test_costs_of_any_sign():
    cost = random_problem(4, 5, 2).cost
    result = solve_partial(TransportProblem(cost - 3), 0.3)
    expected = solve_partial(TransportProblem(cost), 0.3)
    torch.testing.assert_close(result.plan, expected.plan)
    torch.testing.assert_close(result.value, expected.value - 3 * 0.3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_half_precision_is_raised(dtype):
    problem = TransportProblem(random_problem(6, 6, 3).cost.to(dtype))
    result = solve_partial(problem, 0.5)
    assert result.plan.dtype == torch.float32
    assert result.plan.sum().item() == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("mass", [0.0, -0.1, 1.1, float("nan")])
def test_refuses_a_mass(mass):
    with pytest.raises(PromptotError, match=f"'mass' is {mass}"):
        solve_partial(random_problem(2, 2, 0), mass)


def test_refuses_what_is_not_finite():
    cost = torch.rand(3, 3)
    cost[1] = float("inf")
    with pytest.raises(PromptotError, match="source row 1"):
        solve_partial(TransportProblem(cost), 0.5)
