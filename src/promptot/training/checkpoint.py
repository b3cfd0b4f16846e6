"""Where an interrupted run goes on: prompts and all that the next step depends on, in one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from promptot.errors import PromptotError
from promptot.files import write_bytes

PROMPT, MOMENTUM, AVERAGE, OBJECTIVE = "prompt.", "momentum.", "average.", "objective."


@dataclass(frozen=True)
class Checkpoint:
    """State at the end of an epoch.

    Attributes:
        epoch: epochs done.
        run: what the run was started with; a resumed run must agree.
        prompts: tensors by parameter name.
        momentum: SGD's momentum buffers by parameter name; empty before the first step.
        average: the average over epochs so far (see `WeightAverage`); empty without one.
        objective: what the objective remembers (see `Objective.state_dict`).
    """

    epoch: int
    run: Mapping[str, Any]
    prompts: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor]
    average: Mapping[str, Tensor]
    objective: Mapping[str, Tensor]


def save_checkpoint(
    path: Path,
    epoch: int,
    run: Mapping[str, Any],
    prompts: nn.Module,
    optimizer: torch.optim.Optimizer,
    average: Mapping[str, Tensor],
    objective: Mapping[str, Tensor],
) -> None:
    """Write the state at the end of `epoch`, atomically; see `Checkpoint`."""
    tensors = {AVERAGE + name: value for name, value in average.items()}
    tensors |= {OBJECTIVE + name: value for name, value in objective.items()}
    for name, parameter in prompts.named_parameters():
        tensors[PROMPT + name] = parameter.detach()
        buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
        if buffer is not None:
            tensors[MOMENTUM + name] = buffer
    plain = {name: value.cpu().contiguous() for name, value in tensors.items()}
    write_bytes(path, save(plain, {"epoch": str(epoch), "run": json.dumps(run)}))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; nothing is unpickled.

    Raises:
        PromptotError: the file is damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        epoch, run = int(metadata["epoch"]), json.loads(metadata["run"])
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise PromptotError(
            f"The checkpoint '{path}' is damaged.", fix="Start again with --overwrite."
        ) from error
    parts = (
        {key.removeprefix(part): value for key, value in tensors.items() if key.startswith(part)}
        for part in (PROMPT, MOMENTUM, AVERAGE, OBJECTIVE)
    )
    return Checkpoint(epoch, run, *parts)


def restore(checkpoint: Checkpoint, prompts: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors back where they were.

    Raises:
        PromptotError: the checkpoint is of prompts of another shape.
    """
    parameters = dict(prompts.named_parameters())
    shapes = {name: parameter.shape for name, parameter in parameters.items()}
    if {name: value.shape for name, value in checkpoint.prompts.items()} != shapes:
        raise PromptotError(
            "The checkpoint is of prompts of another shape.",
            fix="Resume with the recipe of the run, or start again with --overwrite.",
        )
    with torch.no_grad():
        for name, value in checkpoint.prompts.items():
            parameters[name].copy_(value)
    for name, value in checkpoint.momentum.items():
        parameter = parameters[name]
        optimizer.state[parameter]["momentum_buffer"] = value.to(parameter.device)
