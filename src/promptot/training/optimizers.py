"""What takes the steps: PyTorch's optimisers, their state by name, and their learning rate."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from promptot.recipes.schema import OptimConfig

ADAM = (torch.optim.Adam, torch.optim.AdamW)  # the second is one of the first since torch 2.7
STATES = {
    "momentum_buffer": "",
    "exp_avg": "exp_avg.",
    "exp_avg_sq": "exp_avg_sq.",
    "step": "step.",
}
"""What an optimiser remembers of a parameter, and what its name has in front in a checkpoint."""


def build_optimizer(
    parameters: Iterable[nn.Parameter], config: OptimConfig, deferred: bool
) -> torch.optim.Optimizer:
    """The optimiser of a recipe.

    Args:
        deferred: one kernel, which reads the learning rate on the device and does nothing where
            the attribute `found_inf` of the optimiser holds 1 (see `DeviceStep`).
    """
    parameters = list(parameters)
    device = parameters[0].device
    rate = torch.tensor(config.lr, device=device) if deferred else config.lr
    decay, fused = config.weight_decay, deferred or None
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, rate, config.momentum, weight_decay=decay, fused=fused)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[config.optimizer]
    return kind(
        parameters,
        rate,
        config.betas,
        config.eps,
        weight_decay=decay,
        fused=fused,
        capturable=deferred and device.type == "cuda",
    )


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """The learning rate of the next steps."""
    for group in optimizer.param_groups:
        if isinstance(group["lr"], Tensor):  # graphs read it there
            group["lr"].fill_(rate)
        else:
            group["lr"] = rate


def begin_state(optimizer: torch.optim.Optimizer) -> None:
    """Let what a deferred optimiser remembers be there, as it is before its first step."""
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            state = optimizer.state[parameter]
            for key in _remembered(optimizer):
                if state.get(key) is None:
                    state[key] = _first(key, parameter)


def state_of(optimizer: torch.optim.Optimizer, module: nn.Module) -> dict[str, Tensor]:
    """Copies of what it remembers, by what it is and the parameter's name."""
    return {
        front + name: value.clone()
        for name, parameter in module.named_parameters()
        for key, front in STATES.items()
        if isinstance(value := optimizer.state.get(parameter, {}).get(key), Tensor)
    }


def load_state(
    state: Mapping[str, Tensor], optimizer: torch.optim.Optimizer, module: nn.Module
) -> bool:
    """Go on from `state_of`; whether it is of this optimiser and these parameters, or empty."""
    places = {
        STATES[key] + name: (parameter, key)
        for name, parameter in module.named_parameters()
        for key in _remembered(optimizer)
    }
    if state and state.keys() != places.keys():
        return False
    for name, value in state.items():
        parameter, key = places[name]
        first = _first(key, parameter)
        if (value.shape, value.dtype) != (first.shape, first.dtype):
            return False
    for name, value in state.items():
        parameter, key = places[name]
        # the step of an optimiser that is not one kernel is counted on the host
        own = key == "step" and not optimizer.param_groups[0]["fused"]
        optimizer.state[parameter][key] = value.to("cpu" if own else parameter.device)
    return True


def _remembered(optimizer: torch.optim.Optimizer) -> tuple[str, ...]:
    """What it remembers of each parameter, of `STATES`."""
    adam = isinstance(optimizer, ADAM)
    return ("exp_avg", "exp_avg_sq", "step") if adam else ("momentum_buffer",)


def _first(key: str, parameter: Tensor) -> Tensor:
    """The same before the first step."""
    if key == "step":
        return torch.zeros((), device=parameter.device)
    return torch.zeros_like(parameter)
