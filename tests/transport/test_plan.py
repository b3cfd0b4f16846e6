"""The two diagnostics, on plans whose values are known."""

from __future__ import annotations

import math

import pytest
import torch

from promptot.errors import PromptotError
from promptot.transport import TransportPlan, TransportProblem


def result(plan: torch.Tensor) -> TransportPlan:
    zero = torch.zeros(())
    return TransportPlan(TransportProblem(torch.zeros_like(plan)), plan, zero)


@pytest.mark.parametrize("size", [1, 2, 5, 64])
def test_identity(size):
    plan = result(torch.eye(size) / size)
    assert plan.off_diagonal_mass == 0
    assert plan.entropy == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [2, 5, 64])
def test_cyclic_shift(size):
    plan = result(torch.eye(size).roll(1, dims=1) / size)
    assert plan.off_diagonal_mass == 1
    assert plan.entropy == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("size", [2, 5, 64])
def test_uniform_coupling(size):
    plan = result(torch.full((size, size), 1 / size**2))
    assert plan.off_diagonal_mass == pytest.approx(1 - 1 / size)
    assert plan.entropy == pytest.approx(1, abs=1e-6)


def test_half_way_by_hand():
    """Half identity, half independent: H = −2·(3/8)·log(3/8) − 2·(1/8)·log(1/8)."""
    plan = result(torch.tensor([[3.0, 1.0], [1.0, 3.0]]) / 8)
    entropy = -0.75 * math.log(3 / 8) - 0.25 * math.log(1 / 8)
    assert plan.entropy == pytest.approx((entropy - math.log(2)) / math.log(2), abs=1e-6)
    assert plan.off_diagonal_mass == pytest.approx(0.25)


def test_unequal_marginals_with_zeros():
    source, target = torch.tensor([0.7, 0.3, 0.0]), torch.tensor([0.1, 0.0, 0.4, 0.5])
    assert result(source[:, None] * target).entropy == pytest.approx(1, abs=1e-6)
    # The target row determines the source row: nothing is left to chance.
    split = torch.tensor([[0.2, 0.5, 0.0], [0.0, 0.0, 0.3]])
    assert result(split).entropy == pytest.approx(0, abs=1e-6)


def test_one_point_has_no_entropy():
    assert result(torch.tensor([[0.2, 0.8]])).entropy == 0


def test_a_rectangle_has_no_diagonal():
    with pytest.raises(PromptotError, match="no diagonal"):
        _ = result(torch.full((2, 3), 1 / 6)).off_diagonal_mass


def test_is_immutable():
    with pytest.raises(AttributeError):
        result(torch.eye(2) / 2).value = torch.ones(())
