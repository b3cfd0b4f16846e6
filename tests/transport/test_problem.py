"""What a transport problem refuses, and how it says so."""

from __future__ import annotations

import pytest
import torch

from promptot.errors import PromptotError
from promptot.transport import TransportProblem


def test_uniform_marginals_by_default():
    source, target = TransportProblem(torch.zeros(2, 5)).marginals
    assert torch.equal(source, torch.full((2,), 0.5))
    assert torch.equal(target, torch.full((5,), 0.2))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_sixteen_bits_are_raised(dtype):
    assert TransportProblem(torch.ones(2, 2, dtype=dtype)).cost.dtype == torch.float32


def test_weights_take_the_type_of_the_cost():
    weights = torch.tensor([0.25, 0.75], dtype=torch.bfloat16, requires_grad=True)
    source, _ = TransportProblem(torch.zeros(2, 2, dtype=torch.float64), weights).marginals
    assert source.dtype == torch.float64
    assert not source.requires_grad


def test_rounding_in_the_weights_is_put_right():
    rounded = torch.tensor([0.33335, 0.33335, 0.33335], dtype=torch.float64)
    source, target = TransportProblem(torch.zeros(3, 2).double(), rounded).marginals
    assert source.sum().item() == pytest.approx(target.sum().item(), abs=1e-15)


@pytest.mark.parametrize("cost", [torch.zeros(3), torch.zeros(0, 2), torch.zeros(2, 2).long()])
def test_refuses_a_wrong_cost(cost):
    with pytest.raises(PromptotError, match=r"matrix \[N, M\]"):
        TransportProblem(cost)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([0.5, 0.5, 0.0], "Give 2 weights"),
        ([1.5, -0.5], "non-negative"),
        ([2.0, 2.0], "sum is 4"),
        ([0.0, 0.0], "sum is 0"),
        ([float("nan"), 1.0], "non-negative"),
    ],
)
@pytest.mark.parametrize("side", ["source_weights", "target_weights"])
def test_refuses_wrong_weights(weights, message, side):
    with pytest.raises(PromptotError, match=message) as caught:
        TransportProblem(torch.zeros(2, 2), **{side: torch.tensor(weights)})
    assert side in str(caught.value)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("where", "places"),
    [
        ((1, slice(None)), "source row 1 (of 3)."),
        ((slice(None), [0, 2]), "target rows 0, 2 (of 4)."),
        ((2, 3), "source row 2 (of 3)."),
        (
            (slice(None), slice(None)),
            "source rows 0, 1, 2 (of 3) and target rows 0, 1, 2, 3 (of 4).",
        ),
    ],
)
def test_names_the_rows_that_are_not_finite(value, where, places):
    cost = torch.ones(3, 4)
    cost[where] = value
    with pytest.raises(PromptotError) as caught:
        TransportProblem(cost).check_finite()
    assert caught.value.problem.endswith(places)
    assert "learning rate" in caught.value.fix


def test_long_lists_of_rows_are_cut():
    cost = torch.ones(40, 2)
    cost[5:30] = float("nan")
    with pytest.raises(PromptotError, match="13, 14, … \\(of 40\\)"):
        TransportProblem(cost).check_finite()
