"""The prompts that are kept: an average over epochs, which training itself never sees."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from promptot.errors import PromptotError
from promptot.recipes.schema import EnsemblingConfig


def gaussian_weights(epochs: int, mean: float, sd: float) -> list[float]:
    """Weights of epochs 1..T in proportion to a normal density, of sum 1.

    w_e ∝ exp(−½ ((e − mean) / sd)²): Gaussian prompt aggregation of PromptSRC (Khattak et al. 2023,
    arXiv:2307.06948). A mean beyond T gives the last epochs the most weight.

    Example:
        >>> [round(weight, 3) for weight in gaussian_weights(4, mean=3.0, sd=1.0)]
        [0.058, 0.258, 0.426, 0.258]
    """
    logs = [-0.5 * ((epoch - mean) / sd) ** 2 for epoch in range(1, epochs + 1)]
    highest = max(logs)
    densities = [math.exp(log - highest) for log in logs]
    total = math.fsum(densities)
    return [density / total for density in densities]


def build_averaging(config: EnsemblingConfig, epochs: int) -> WeightAverage | None:
    """The average that a recipe's `ensembling` section asks for; None if the last epoch is kept.

    Args:
        config: its mean, if null, becomes three quarters of `epochs`.
        epochs: those that are trained. A run that stops early (`evaluate_epoch`) is averaged over
            the epochs up to there, with weights of sum 1.
    """
    if config.rule == "none":
        return None
    if config.rule == "uniform":
        return WeightAverage([1 / epochs] * epochs)
    mean = 0.75 * epochs if config.mean is None else config.mean
    return WeightAverage(gaussian_weights(epochs, mean, config.sd))


class WeightAverage:
    """Σ_e w_e θ_e over the parameters θ_e at the end of each epoch e.

    Args:
        weights: w_1..w_T, of sum 1.

    Example:
        >>> layer, average = nn.Linear(1, 1, bias=False), WeightAverage([0.25, 0.75])
        >>> for epoch, value in enumerate((1.0, 5.0), start=1):
        ...     _ = nn.init.constant_(layer.weight, value)
        ...     average.add(epoch, layer)
        >>> average.copy_to(layer)
        >>> layer.weight.item()
        4.0
    """

    def __init__(self, weights: Sequence[float]) -> None:
        self.weights = tuple(weights)
        self._sums: dict[str, Tensor] = {}

    def add(self, epoch: int, module: nn.Module) -> None:
        """Take up the parameters of `module` as they are at the end of `epoch`, counted from 1."""
        for name, parameter in module.named_parameters():
            part = self.weights[epoch - 1] * parameter.detach()
            self._sums[name] = self._sums[name] + part if name in self._sums else part

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Set the parameters of `module` to the average of all epochs."""
        for name, parameter in module.named_parameters():
            parameter.copy_(self._sums[name])

    def state_dict(self) -> dict[str, Tensor]:
        """The sums so far, by parameter name."""
        return dict(self._sums)

    def load_state_dict(self, state: Mapping[str, Tensor], device: torch.device) -> None:
        """Go on from `state_dict`, on the device of the parameters.

        Raises:
            PromptotError: it is empty: the run so far was not averaged.
        """
        if not state:
            raise PromptotError(
                "The checkpoint holds no average over epochs.",
                fix="Resume with the recipe that the run was started with.",
            )
        self._sums = {name: value.to(device) for name, value in state.items()}
