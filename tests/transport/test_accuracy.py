"""Numbers that went wrong once: points without weight, small ε, tiny costs and drifts."""

from __future__ import annotations

import warnings
from itertools import pairwise

import numpy as np
import pytest
import torch

from promptot.transport import (
    ConvergenceWarning,
    TransportProblem,
    sinkhorn_divergence,
    solve_exact,
    solve_partial,
    solve_sinkhorn,
    solve_unbalanced,
    squared_euclidean,
    unbalanced_divergence,
)

DIVERGENCES = [sinkhorn_divergence, unbalanced_divergence]
SOLVERS = [solve_sinkhorn, solve_unbalanced]


def points(size, seed=0, width=6, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(size, width, generator=generator, dtype=torch.float64).to(dtype)


def weights(size, zeros=(), dtype=torch.float32):
    values = torch.rand(size, generator=torch.Generator().manual_seed(1), dtype=torch.float64) + 0.1
    values[list(zeros)] = 0
    return (values / values.sum()).to(dtype)


@pytest.mark.parametrize("solve", SOLVERS)
@pytest.mark.parametrize("far", [0.0, 1e2, 1e6, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("relative", [True, False])
def test_points_without_weight_change_nothing(solve, far, dtype, relative) -> None:
    cost = squared_euclidean(points(5, 0, dtype=dtype), points(6, 1, dtype=dtype))
    cost[2] += far
    cost[:, 1] += far
    a, b = weights(5, [2], dtype), weights(6, [1], dtype)
    cost.requires_grad_()
    result = solve(TransportProblem(cost, a, b), 0.1, relative=relative)
    rows, columns = [0, 1, 3, 4], [0, 2, 3, 4, 5]
    small = TransportProblem(cost.detach()[rows][:, columns], a[rows], b[columns])
    expected = solve(small, 0.1, relative=relative)
    assert result.converged
    torch.testing.assert_close(result.plan[rows][:, columns], expected.plan)
    assert result.plan[2].count_nonzero() == result.plan[:, 1].count_nonzero() == 0
    torch.testing.assert_close(result.value, expected.value)
    torch.testing.assert_close(result.regularised_value, expected.regularised_value)
    assert result.marginal_error == pytest.approx(float(expected.marginal_error), abs=1e-6)
    f, g = result.potentials
    assert f.isfinite().all()
    assert g.isfinite().all()
    if far < 1e6:  # π = a b exp((f + g − C) / ε) would sum to a, were there any weight
        damping = 1.0 if solve is solve_sinkhorn else 1 / (1 + 0.1)
        soft = -torch.logsumexp(b.log() + (g - cost[2]) / result.epsilon, dim=0) * result.epsilon
        torch.testing.assert_close(f[2], damping * soft.detach(), rtol=1e-4, atol=1e-5)
    result.regularised_value.backward()
    assert torch.equal(cost.grad, result.plan)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("far", [1.0, 1e3, 1e6])
def test_divergences_with_far_points_without_weight(divergence, far) -> None:
    x, y = points(5, 0), points(6, 1)
    a, b = weights(5, [2]), weights(6, [1])
    rows, columns = [0, 1, 3, 4], [0, 2, 3, 4, 5]
    expected = divergence(
        x[rows], y[columns], source_weights=a[rows], target_weights=b[columns], tolerance=1e-6
    )
    x[2] += far
    y[1] -= far
    x.requires_grad_()
    result = divergence(x, y, source_weights=a, target_weights=b, tolerance=1e-6)
    assert result.converged
    torch.testing.assert_close(result.value, expected.value, rtol=1e-5, atol=1e-6)
    for plan, size in ((result.plan, (5, 6)), (result.source_plan, (5, 5))):
        assert plan.plan.shape == size
        assert plan.plan.isfinite().all()
        assert plan.plan[2].count_nonzero() == 0
        assert all(p.isfinite().all() for p in plan.potentials)
        assert plan.value.isfinite()
    result.value.backward()
    assert x.grad.isfinite().all()
    assert x.grad[2].count_nonzero() == 0


@pytest.mark.parametrize("tiny", [1e-12, 1e-30])
@pytest.mark.parametrize("divergence", DIVERGENCES)
def test_far_points_of_hardly_any_weight(divergence, tiny) -> None:
    x, y = points(4, 0, dtype=torch.float64), points(4, 1, dtype=torch.float64)
    expected = divergence(x, y, tolerance=1e-8)
    far = torch.cat([x, x[:1] + 10])
    a = torch.tensor([0.25 - tiny, 0.25, 0.25, 0.25, tiny], dtype=torch.float64)
    result = divergence(far, y, source_weights=a, tolerance=1e-8)
    torch.testing.assert_close(result.value, expected.value, rtol=1e-6, atol=1e-8)


def true_error(result) -> float:
    """L1 error of the marginals, the worse side, with sums in fp64."""
    plan = result.plan.double()
    a, b = (w.double() for w in result.problem.marginals)
    return float(max((plan.sum(dim=1) - a).abs().sum(), (plan.sum(dim=0) - b).abs().sum()))


@pytest.mark.filterwarnings("ignore::promptot.transport.ConvergenceWarning")
@pytest.mark.parametrize("epsilon", [1e-2, 1e-3, 1e-4, 1e-5, 1e-7, 1e-12])
@pytest.mark.parametrize(
    ("rows", "columns"), [(6, 6), (8, 5), pytest.param(100, 95, marks=pytest.mark.slow)]
)
def test_converged_is_said_of_the_plan_that_is_returned(epsilon, rows, columns) -> None:
    x, y = points(rows, 0), points(columns, 1)
    cost = squared_euclidean(x, y)
    result = solve_sinkhorn(TransportProblem(cost), epsilon, relative=False)
    assert result.converged == (true_error(result) <= 1.2e-4)
    result = solve_unbalanced(TransportProblem(cost), epsilon, 1.0, relative=False)
    f, g = (p.double() for p in result.potentials)
    sums = [1 / n * torch.exp(-p) for n, p in ((rows, f), (columns, g))]
    error = max(
        (result.plan.double().sum(dim=d) - s).abs().sum() for d, s in zip((1, 0), sums, strict=True)
    )
    assert not result.converged or error <= 2e-4
    for divergence in DIVERGENCES:
        result = divergence(x, y, epsilon, relative=False, max_iterations=20)
        if divergence is sinkhorn_divergence:
            for plan in (result.plan, result.source_plan, result.target_plan):
                assert not plan.converged or true_error(plan) <= 1.2e-4


def test_fp64_solves_what_fp32_can_not() -> None:
    """Two clusters that match: few iterations, but C/ε has no digit left in fp32."""
    x = points(6, 0)
    cost = 0.5 + squared_euclidean(x, x)
    result = solve_sinkhorn(TransportProblem(cost), 1e-6, relative=False)
    assert result.converged
    assert true_error(result) <= 1e-4
    assert result.plan.dtype == torch.float32
    torch.testing.assert_close(result.plan, torch.eye(6) / 6)


def test_a_plan_that_rounding_spoils_is_warned_of() -> None:
    cost = 1e9 + torch.rand(5, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with pytest.warns(ConvergenceWarning, match="did not reach"):
        result = solve_sinkhorn(TransportProblem(cost), 1e-7, relative=False, tolerance=1e-9)
    assert not result.converged


def certified(result, rtol=1e-9) -> None:
    """Optimal by linear programming duality: u + v ≤ C everywhere, and no gap in value."""
    cost = result.cost.detach().double()
    u, v = (p.double() for p in result.potentials)
    a, b = (w.double() for w in result.problem.marginals)
    size = float((result.plan * cost.abs()).sum())
    assert float((u[:, None] + v - cost).max()) <= rtol * float(cost.abs().max())
    gap = float((result.plan * cost).sum() - (a @ u + b @ v))
    assert abs(gap) <= rtol * size


@pytest.mark.parametrize("scale", [1e-300, 1e-100, 1e-30, 1e-15, 1e-13, 1.0, 1e13, 1e100])
@pytest.mark.parametrize(("rows", "columns"), [(7, 7), (20, 31)])
def test_weighted_exact_plans_do_not_depend_on_the_scale_of_the_cost(scale, rows, columns) -> None:
    x, y = points(rows, 0, dtype=torch.float64), points(columns, 1, dtype=torch.float64)
    a, b = weights(rows, [0], torch.float64), weights(columns, dtype=torch.float64)
    cost = squared_euclidean(x, y)
    expected = solve_exact(TransportProblem(cost, a, b))
    result = solve_exact(TransportProblem(scale * cost, a, b))
    certified(expected)
    if scale > 1e-290:
        certified(result)
    assert result.converged
    assert float(result.value / scale) == pytest.approx(float(expected.value), rel=1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-13, 1e-6, 1.0, 1e13])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_partial_plans_do_not_depend_on_the_scale_of_the_cost(scale, dtype) -> None:
    x, y = points(12, 0, dtype=dtype), points(12, 1, dtype=dtype)
    cost = squared_euclidean(x, y)
    expected = solve_partial(TransportProblem(cost), 0.7)
    result = solve_partial(TransportProblem(scale * cost), 0.7)
    assert float(result.value / scale) == pytest.approx(float(expected.value), rel=1e-5)
    torch.testing.assert_close(result.plan, expected.plan, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("far", [1e2, 1e6])
def test_a_few_costs_that_are_far_larger_do_not_blur_the_others(far) -> None:
    """Two clusters that match, far apart; what is paid is tiny beside the largest cost."""
    x, y = points(10, 0, dtype=torch.float64), points(10, 1, dtype=torch.float64)
    cost = torch.full((20, 20), far, dtype=torch.float64)
    small = 1e-6 * squared_euclidean(x, y)
    cost[:10, :10] = cost[10:, 10:] = small
    a = weights(10, dtype=torch.float64) / 2
    b = weights(10, dtype=torch.float64).flip(0) / 2
    result = solve_exact(TransportProblem(cost, torch.cat([a, a]), torch.cat([b, b])))
    expected = solve_exact(TransportProblem(small, 2 * a, 2 * b)).value
    assert float(result.value) == pytest.approx(float(expected), rel=1e-6)


def test_weighted_exact_plans_of_tiny_drift() -> None:
    """What training has in its first steps: cheap to stay, dear to move."""
    y = torch.nn.functional.normalize(points(16, 0, 64), dim=1)
    x = y + 1e-7 * points(16, 1, 64)
    a = weights(16)
    result = solve_exact(TransportProblem(squared_euclidean(x, y), a, a))
    direct = (a.double() * (x.double() - y.double()).square().sum(dim=1)).sum() / 2
    assert float(result.value) == pytest.approx(float(direct), rel=1e-5)


@pytest.mark.parametrize("drift", [1e-2, 1e-3, 1e-5, 1e-6, 1e-7, 3e-8])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_costs_of_any_drift_are_those_of_direct_differences(drift, dtype) -> None:
    y = torch.nn.functional.normalize(points(12, 0, 1024, torch.float64), dim=1).to(dtype)
    y[5] = y[3]  # the same image twice
    noise = torch.nn.functional.normalize(points(12, 1, 1024, torch.float64), dim=1)
    x = (y.double() + drift * noise).to(dtype).requires_grad_()
    differences = x.detach().double()[:, None] - y.double()  # [N, M, D]
    direct = differences.square().sum(dim=-1) / 2
    cost = squared_euclidean(x, y)
    tolerance = 2e-7 if dtype == torch.float32 else 2e-13
    torch.testing.assert_close(cost.double(), direct, rtol=tolerance, atol=0)
    (gradient,) = torch.autograd.grad(cost.diagonal().sum(), x)
    torch.testing.assert_close(
        gradient.double(), differences.diagonal().T, rtol=1e-5, atol=1e-6 * drift / 32
    )


@pytest.mark.parametrize("drift", [1e-20, 1e-12])
def test_costs_in_fp64_go_as_far_down(drift) -> None:
    y = torch.zeros(3, 4, dtype=torch.float64)
    x = torch.full_like(y, drift)
    torch.testing.assert_close(
        squared_euclidean(x, y), torch.full((3, 3), 2 * drift**2, dtype=x.dtype), rtol=1e-12, atol=0
    )
    y = y + 1
    x = y + drift
    expected = 2 * float(x[0, 0] - 1) ** 2
    torch.testing.assert_close(
        squared_euclidean(x, y), torch.full((3, 3), expected, dtype=x.dtype), rtol=1e-12, atol=0
    )


def test_many_close_pairs_are_computed_in_pieces() -> None:
    x = 1 + 1e-5 * points(1000, 0, 8)
    y = 1 + 1e-5 * points(1100, 1, 8)
    direct = (x.double()[:, None] - y.double()).square().sum(dim=-1)
    torch.testing.assert_close(squared_euclidean(x, y, 1.0).double(), direct, rtol=2e-7, atol=0)


@pytest.mark.parametrize("divergence", DIVERGENCES)
@pytest.mark.parametrize("drift", [1e-1, 1e-2, 1e-3, 1e-4])
def test_divergences_in_fp32_are_those_of_fp64(divergence, drift) -> None:
    """Differences of three nearly equal values; the points are the same in both."""
    y = torch.nn.functional.normalize(points(24, 0, 64), dim=1)
    x = torch.nn.functional.normalize(y + drift * points(24, 1, 64) / 8, dim=1)
    options = {"epsilon": 0.1, "tolerance": 1e-7, "max_iterations": 20_000}
    result = divergence(x, y, **options)
    options["tolerance"] = 1e-13
    exact = divergence(x.double(), y.double(), **options)
    assert result.value.dtype == torch.float32
    assert float(result.value) == pytest.approx(float(exact.value), rel=1e-5)


def test_the_divergence_of_tiny_drift_is_the_plain_computation() -> None:
    """Against Sinkhorn written out in extended precision."""
    y = torch.nn.functional.normalize(points(6, 0, 8), dim=1)
    x = torch.nn.functional.normalize(y + 1e-3 * points(6, 1, 8), dim=1)
    result = sinkhorn_divergence(x, y, 0.1, relative=False, tolerance=1e-8)

    def value(p, q):
        p, q = (np.asarray(t, dtype=np.longdouble) for t in (p, q))
        cost = ((p[:, None] - q[None]) ** 2).sum(-1) / 2
        kernel = np.exp(-cost / np.longdouble("0.1")) / len(q)
        v = np.ones(len(q), dtype=np.longdouble)
        for _ in range(5000):
            u = 1 / (kernel @ v)
            v = 1 / (kernel.T @ u * len(q) / len(p))
        return np.longdouble("0.1") * (np.log(u).mean() + np.log(v).mean())

    expected = value(x, y) - (value(x, x) + value(y, y)) / 2
    assert float(result.value) == pytest.approx(float(expected), rel=1e-5)


def test_values_grow_with_the_drift() -> None:
    y = torch.nn.functional.normalize(points(16, 0, 64), dim=1)
    noise = points(16, 1, 64)
    values = [
        float(sinkhorn_divergence(y + drift * noise, y, 0.1, tolerance=1e-7).value)
        for drift in (1e-7, 1e-6, 1e-5, 1e-4, 1e-3)
    ]
    for less, more in pairwise(values):
        assert more == pytest.approx(100 * less, rel=0.05)


def test_no_warning_where_all_is_well() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        solve_sinkhorn(TransportProblem(squared_euclidean(points(9), points(9, 1))))
        sinkhorn_divergence(points(9), points(9, 1))
        unbalanced_divergence(points(9), points(9, 1))
