"""Averages of prompts over epochs, against plain sums."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from promptot.errors import PromptotError
from promptot.recipes.schema import (
    GaussianEnsemblingConfig,
    NoEnsemblingConfig,
    UniformEnsemblingConfig,
)
from promptot.training.averaging import WeightAverage, build_averaging, gaussian_weights


@pytest.mark.parametrize(("mean", "sd"), [(15.0, 1.0), (6.0, 10.0), (30.0, 30.0)])
def test_gaussian_weights_are_a_density_of_sum_one(mean: float, sd: float) -> None:
    epochs = 20
    density = [
        math.exp(-0.5 * ((epoch - mean) / sd) ** 2) / (sd * math.sqrt(2 * math.pi))
        for epoch in range(1, epochs + 1)
    ]
    expected = [value / sum(density) for value in density]
    weights = gaussian_weights(epochs, mean, sd)
    assert weights == pytest.approx(expected, rel=1e-9)
    assert math.fsum(weights) == pytest.approx(1)


def test_a_mean_far_beyond_the_epochs_keeps_the_last_one() -> None:
    assert gaussian_weights(3, mean=300.0, sd=0.01) == [0.0, 0.0, 1.0]


def test_the_average_is_the_weighted_sum() -> None:
    weights = gaussian_weights(5, mean=4.0, sd=1.5)
    average, layer = WeightAverage(weights), nn.Linear(3, 2)
    seen = []
    for epoch in range(1, 6):
        nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(epoch))
        average.add(epoch, layer)
        seen.append(layer.weight.detach().double().clone())
    average.copy_to(layer)
    expected = sum(w * value for w, value in zip(weights, seen, strict=True))
    torch.testing.assert_close(layer.weight.double(), expected, rtol=0, atol=1e-6)
    assert layer.weight.requires_grad


def test_a_state_is_a_snapshot_that_can_be_gone_on_from() -> None:
    layer, whole = nn.Linear(2, 2), WeightAverage([0.25, 0.75])
    whole.add(1, layer)
    state = whole.state_dict()
    before = {name: value.clone() for name, value in state.items()}
    nn.init.ones_(layer.weight)
    whole.add(2, layer)
    assert all(torch.equal(state[name], before[name]) for name in before)
    resumed = WeightAverage([0.25, 0.75])
    resumed.load_state_dict(state, torch.device("cpu"))
    resumed.add(2, layer)
    assert all(torch.equal(v, whole.state_dict()[k]) for k, v in resumed.state_dict().items())
    with pytest.raises(PromptotError, match="holds no average"):
        resumed.load_state_dict({}, torch.device("cpu"))


def test_rules() -> None:
    assert build_averaging(NoEnsemblingConfig(), 4) is None
    uniform = build_averaging(UniformEnsemblingConfig(rule="uniform"), 4)
    assert uniform is not None
    assert uniform.weights == (0.25, 0.25, 0.25, 0.25)
    published = build_averaging(GaussianEnsemblingConfig(rule="gaussian", mean=15.0), 20)
    scaled = build_averaging(GaussianEnsemblingConfig(rule="gaussian"), 20)
    assert published is not None
    assert scaled is not None
    assert published.weights == scaled.weights == tuple(gaussian_weights(20, 15, 1))
