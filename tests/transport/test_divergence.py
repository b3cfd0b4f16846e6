"""The debiased divergence: zero at equality, positive elsewhere, right gradients on both sides."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from promptot.errors import PromptotError
from promptot.transport import (
    ConvergenceWarning,
    TransportProblem,
    sinkhorn_divergence,
    solve_exact,
    solve_sinkhorn,
    squared_euclidean,
)

TIGHT = {"relative": False, "max_iterations": 50_000, "tolerance": 1e-12}


def points(size, seed, width=3, dtype=torch.float64):
    return torch.randn(size, width, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize(("rows", "columns"), [(5, 5), (4, 6), (1, 3)])
def test_is_made_of_three_entropic_problems(rows, columns):
    x, y = points(rows, 0), points(columns, 1)

    def term(x, y):
        problem = TransportProblem(squared_euclidean(x, y, 0.5))
        return solve_sinkhorn(problem, 2.0, **TIGHT).regularised_value

    result = sinkhorn_divergence(x, y, 2.0, **TIGHT)
    torch.testing.assert_close(result.value, term(x, y) - term(x, x) / 2 - term(y, y) / 2)
    assert result.converged
    for plan, (n, m) in (
        (result.plan, (rows, columns)),
        (result.source_plan, (rows, rows)),
        (result.target_plan, (columns, columns)),
    ):
        torch.testing.assert_close(plan.plan.sum(dim=1), torch.full((n,), 1 / n).double())
        torch.testing.assert_close(plan.plan.sum(dim=0), torch.full((m,), 1 / m).double())
        assert plan.marginal_error < 1e-11


@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_to_both_sides_by_finite_differences(weighted):
    x, y = points(3, 0, width=2).requires_grad_(), points(4, 1, width=2).requires_grad_()
    weights = torch.tensor([0.0, 0.3, 0.7], dtype=torch.float64) if weighted else None

    def value(x, y):
        return sinkhorn_divergence(x, y, 2.0, source_weights=weights, **TIGHT).value

    assert torch.autograd.gradcheck(value, (x, y))
    shared = torch.autograd.grad(value(x, y), x)[0]
    (cross,) = torch.autograd.grad(sinkhorn_divergence(x, y, 2.0, **TIGHT).plan.value, x)
    assert (shared - cross).abs().max() > 0.01  # the terms of x with itself matter


@settings(max_examples=30, deadline=None)
@given(
    size=st.integers(1, 10),
    epsilon=st.sampled_from([0.02, 0.1, 1.0, 10.0]),
    seed=st.integers(0, 10**6),
    dtype=st.sampled_from([torch.float32, torch.float64]),
)
def test_zero_with_zero_gradient_at_equality(size, epsilon, seed, dtype):
    x = points(size, seed, dtype=dtype).requires_grad_()
    precision = 1e-5 if dtype == torch.float32 else 1e-12
    result = sinkhorn_divergence(x, x.detach().clone(), epsilon, tolerance=precision)
    result.value.backward()
    assert result.converged
    # The value is ε times a sum of order one, so that is what its rounding errors scale with.
    assert result.value.item() == pytest.approx(
        0, abs=precision * max(1, result.plan.epsilon.item())
    )
    assert x.grad.abs().max() <= precision


@pytest.mark.filterwarnings("ignore::promptot.transport.ConvergenceWarning")
@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 8),
    columns=st.integers(1, 8),
    epsilon=st.sampled_from([0.05, 0.5, 5.0]),
    drift=st.sampled_from([1e-3, 0.1, 1.0]),
    seed=st.integers(0, 10**6),
)
def test_never_negative(rows, columns, epsilon, drift, seed):
    x = points(rows, seed)
    y = points(columns, seed + 1) if rows != columns else x + drift * points(rows, seed + 1)
    result = sinkhorn_divergence(x, y, epsilon, max_iterations=5000, tolerance=1e-8)
    assert result.value > -1e-9


def test_between_exact_transport_and_the_distance_of_means():
    x, y = points(6, 0), points(6, 1)
    exact = solve_exact(TransportProblem(squared_euclidean(x, y))).value
    sharp = sinkhorn_divergence(x, y, 0.002, max_iterations=50_000).value
    torch.testing.assert_close(sharp, exact, rtol=0.01, atol=0)
    soft = sinkhorn_divergence(x, y, 1e4).value
    means = (x.mean(dim=0) - y.mean(dim=0)).square().sum() / 2
    torch.testing.assert_close(soft, means, rtol=0.01, atol=0)


@pytest.mark.filterwarnings("ignore::promptot.transport.ConvergenceWarning")
def test_the_value_errs_by_the_square_of_the_marginal_error():
    x, epsilon = points(5, 0), 1.0
    best = sinkhorn_divergence(x, x, epsilon, **TIGHT).source_plan.regularised_value
    for iterations in (1, 2, 3):
        early = sinkhorn_divergence(x, x, epsilon, relative=False, max_iterations=iterations)
        error = (early.source_plan.regularised_value - best).abs()
        assert 0 < error < epsilon * early.source_plan.marginal_error**2


def test_symmetric():
    x, y = points(4, 0), points(6, 1)
    forward, backward = (
        sinkhorn_divergence(*pair, 0.2, **TIGHT).value for pair in ((x, y), (y, x))
    )
    torch.testing.assert_close(forward, backward)


def test_duplicates_and_zero_weights_change_nothing():
    x, y = points(3, 0), points(3, 1)
    expected = sinkhorn_divergence(x, y, 0.2, **TIGHT).value
    twice = sinkhorn_divergence(x.repeat(2, 1), y, 0.2, **TIGHT).value
    torch.testing.assert_close(twice, expected)
    padded = torch.cat([x, points(2, 5)])
    weights = torch.tensor([1.0, 1.0, 1.0, 0.0, 0.0]) / 3
    ignored = sinkhorn_divergence(padded, y, 0.2, source_weights=weights, **TIGHT).value
    torch.testing.assert_close(ignored, expected, rtol=1e-6, atol=1e-6)


def test_points_that_all_coincide():
    x = torch.ones(4, 3, requires_grad=True)
    result = sinkhorn_divergence(x, torch.ones(5, 3))
    result.value.backward()
    assert result.value.item() == pytest.approx(0, abs=1e-30)
    assert torch.equal(x.grad, torch.zeros(4, 3))


def test_sixteen_bits_are_raised():
    x = points(4, 0).bfloat16()
    assert sinkhorn_divergence(x, x + 1).value.dtype == torch.float32


def test_refuses_what_is_not_finite():
    x = points(4, 0)
    x[2, 1] = float("nan")
    with pytest.raises(PromptotError, match="source row 2"):
        sinkhorn_divergence(x, points(4, 1))


def test_warns_when_it_stops_early():
    with pytest.warns(ConvergenceWarning):
        result = sinkhorn_divergence(points(8, 0), points(8, 1), 1e-3, max_iterations=5)
    assert not result.converged
