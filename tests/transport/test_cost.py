"""Squared distances: right, accurate for close points, in every precision."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.transport import squared_euclidean


def direct(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (x.double()[:, None] - y.double()[None]).square().sum(dim=-1)


@pytest.mark.parametrize(("rows", "columns", "width"), [(1, 1, 1), (4, 4, 1024), (7, 3, 64)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_matches_direct_differences(rows, columns, width, dtype):
    x, y = torch.randn(rows, width).to(dtype), torch.randn(columns, width).to(dtype)
    cost = squared_euclidean(x, y, scale=0.3)
    assert cost.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(cost.double(), 0.3 * direct(x, y), rtol=1e-6, atol=0)


def test_small_drift_keeps_its_digits_in_fp32():
    """The textbook expansion in fp32 gets no digit of these distances right."""
    y = torch.nn.functional.normalize(torch.randn(32, 1024) + 2, dim=1)
    x = y + 1e-5 * torch.randn(32, 1024)
    cost = squared_euclidean(x, y, scale=1.0).diagonal()
    torch.testing.assert_close(cost.double(), direct(x, y).diagonal(), rtol=1e-6, atol=0)
    textbook = (x.square().sum(1) + y.square().sum(1) - 2 * (x * y).sum(1)).double()
    assert ((textbook - direct(x, y).diagonal()) / direct(x, y).diagonal()).abs().max() > 0.1


def test_equal_points_cost_exactly_nothing():
    x = torch.nn.functional.normalize(torch.randn(20, 513), dim=1).repeat(2, 1)
    cost = squared_euclidean(x, x.clone())
    assert torch.equal(cost.diagonal(), torch.zeros(40))
    assert torch.equal(cost[:20, 20:].diagonal(), torch.zeros(20))
    assert (cost >= 0).all()


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e200])
def test_what_is_not_finite_stays_so(value):
    x = torch.ones(3, 2, dtype=torch.float64)
    x[1, 0] = value
    assert squared_euclidean(x, torch.ones(2, 2)).isfinite().all(dim=1).tolist() == [
        True,
        False,
        True,
    ]


def test_gradient_by_finite_differences():
    x = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.randn(5, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(squared_euclidean, (x, y))


def test_stays_in_full_precision_under_autocast():
    x = torch.randn(6, 64)
    expected = squared_euclidean(x, x + 0.01)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(squared_euclidean(x, x + 0.01), expected)


@pytest.mark.parametrize(
    ("x", "y", "scale"),
    [
        (torch.zeros(2, 3), torch.zeros(2, 4), 0.5),
        (torch.zeros(3), torch.zeros(3), 0.5),
        (torch.zeros(2, 3), torch.zeros(2, 3), 0.0),
        (torch.zeros(2, 3), torch.zeros(2, 3), float("nan")),
    ],
)
def test_refuses(x, y, scale):
    with pytest.raises(PromptotError):
        squared_euclidean(x, y, scale)
