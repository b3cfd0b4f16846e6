"""Where an interrupted run goes on: prompts and all that the next step depends on, in one file.

No state of a random generator is among it: order, augmentation and anchor words are drawn as
functions of the seed, the epoch, the step and the image, so `epoch` and `step` say it all.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, Field, ValidationError
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from promptot.errors import NotFinite, PromptotError
from promptot.files.reading import open_regular, parse_json
from promptot.files.weights_file import DAMAGED
from promptot.files.writing import write_bytes
from promptot.training.optimizers import load_state, state_of
from promptot.training.training_log import StepRecord

FORMAT_VERSION = 2
"""1 (promptot 0.1.0, without a number) was written at the end of an epoch only; it is read too."""
SAVE_SECONDS = 300.0
"""Longest time between two checkpoints, but for the step that is at work."""
LARGEST_FILE = 2**32  # bytes
LARGEST_RUN = 2**20  # characters of JSON
PARTS = ("prompt.", "momentum.", "average.", "objective.")
RECORDS = "records"
NUMBERS = (torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int32, torch.int64,
           torch.bool)  # fmt: skip


@dataclass(frozen=True)
class CheckpointFile:
    """Where a run writes its checkpoints.

    Attributes:
        path: the file; if it exists, the run goes on from it.
        run: what identifies the run, kept in it.
        seconds: how long an epoch may go on before one is written within it.
    """

    path: Path
    run: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = SAVE_SECONDS


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """State after `step` batches of the epoch that follows `epoch` whole ones.

    Attributes:
        epoch: epochs done.
        step: batches done in the next epoch.
        skipped: of these, the ones that were left out because something was not finite.
        run: what the run was started with; a resumed run must agree.
        prompts: tensors by parameter name.
        momentum: what the optimiser remembers (see `state_of`); empty before the first step.
        average: the average over epochs so far (see `WeightAverage`); empty without one.
        objective: what the objective remembers (see `Objective.state_dict`).
        records: of the steps done in the next epoch, those left out apart; more may follow.
    """

    epoch: int
    step: int
    skipped: int
    run: Mapping[str, Any]
    prompts: Mapping[str, Tensor]
    momentum: Mapping[str, Tensor] = field(default_factory=dict)
    average: Mapping[str, Tensor] = field(default_factory=dict)
    objective: Mapping[str, Tensor] = field(default_factory=dict)
    records: Sequence[StepRecord] = ()


class _Header(BaseModel):
    """What a checkpoint says of itself, as text."""

    format_version: int = Field(default=1, ge=1)
    epoch: int = Field(ge=0, le=2**40)
    step: int = Field(default=0, ge=0, le=2**40)
    skipped: int = Field(default=0, ge=0, le=2**40)
    run: str = Field(max_length=LARGEST_RUN)


def copy_state(
    prompts: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Copies of the parameters, and of what the optimiser remembers, by name."""
    values = {name: value.detach().clone() for name, value in prompts.named_parameters()}
    return values, state_of(optimizer, prompts)


def save_checkpoint(path: Path, state: Checkpoint) -> None:
    """Write a checkpoint, atomically.

    Raises:
        NotFinite: a tensor holds NaN or infinity, so that nothing could go on from it. What was
            there before stays.
        PromptotError: the file can't be written.
    """
    parts = state.prompts, state.momentum, state.average, state.objective
    tensors = {
        part + name: value
        for part, values in zip(PARTS, parts, strict=True)
        for name, value in values.items()
    }
    for name, value in tensors.items():
        if not bool(value.isfinite().all()):
            raise NotFinite(
                f"'{name}' has grown beyond what numbers can hold.",
                fix="Lower optim.lr; the last checkpoint is intact.",
            )
    rows = [astuple(record) for record in state.records[: state.step - state.skipped]]
    tensors[RECORDS] = torch.tensor(rows, dtype=torch.float64)  # [steps, fields], or [0]
    numbers = {"epoch": state.epoch, "step": state.step, "skipped": state.skipped}
    header = {name: str(n) for name, n in {"format_version": FORMAT_VERSION, **numbers}.items()}
    header["run"] = json.dumps(state.run)
    write_bytes(path, save({name: v.cpu().contiguous() for name, v in tensors.items()}, header))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint; every number in it is checked, and nothing is unpickled.

    Whether the tensors fit the run is for `restore` and for those that take the other parts.

    Raises:
        PromptotError: the file is damaged, or a newer promptot wrote it.
    """
    try:
        with open_regular(path) as opened:
            if opened.seek(0, os.SEEK_END) > LARGEST_FILE:
                raise _damaged(path, "it is far too large")
        with safe_open(path, "pt") as file:
            header = _Header.model_validate(file.metadata() or {})
            if header.format_version > FORMAT_VERSION:
                raise PromptotError(
                    f"The checkpoint '{path}' has format version {header.format_version}; this "
                    f"promptot reads up to {FORMAT_VERSION}.",
                    fix="Update promptot: pip install -U promptot",
                )
            run = parse_json(header.run)
            tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except PromptotError:
        raise
    except ValidationError as error:
        first = error.errors()[0]
        raise _damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    except DAMAGED as error:
        raise _damaged(path, "it is not a readable safetensors file") from error
    if not isinstance(run, dict):
        raise _damaged(path, "it does not say what run it is of")
    records = _records(tensors.pop(RECORDS, torch.zeros(0, dtype=torch.float64)))
    if records is None or len(records) != header.step - header.skipped:
        raise _damaged(path, "its records are not those of its steps")
    parts: dict[str, dict[str, Tensor]] = {part: {} for part in PARTS}
    for key, value in tensors.items():
        part = next((part for part in parts if key.startswith(part)), None)
        if part is None:
            raise _damaged(path, f"the tensor '{key[:80]}' belongs to nothing")
        if value.dtype not in NUMBERS or not bool(value.isfinite().all()):
            raise _damaged(path, f"the tensor '{key[:80]}' holds what is not a finite number")
        parts[part][key.removeprefix(part)] = value
    done = header.epoch, header.step, header.skipped
    prompts, momentum, average, objective = parts.values()
    return Checkpoint(*done, run, prompts, momentum, average, objective, records)


def restore(checkpoint: Checkpoint, prompts: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Put a checkpoint's tensors back where they were.

    Raises:
        PromptotError: the checkpoint is of prompts of another shape.
    """
    parameters = dict(prompts.named_parameters())
    expected = {name: (p.shape, p.dtype) for name, p in parameters.items()}
    average = _shapes(checkpoint.average)
    fits = _shapes(checkpoint.prompts) == expected and average in (expected, {})
    if not (fits and load_state(checkpoint.momentum, optimizer, prompts)):
        raise PromptotError(
            "The checkpoint is of prompts of another shape, or of another optimiser.",
            fix="Resume with the recipe of the run, or start again with --overwrite.",
        )
    with torch.no_grad():
        for name, value in checkpoint.prompts.items():
            parameters[name].copy_(value)


def _records(table: Tensor) -> list[StepRecord] | None:
    """Step records from their values [steps, fields]; None if it holds anything else."""
    if table.dtype != torch.float64:
        return None
    if table.numel() == 0:
        return []
    if table.dim() != 2 or table.shape[1] != len(fields(StepRecord)):
        return None
    if not bool(table[:, :2].isfinite().all()) or bool((table[:, :2].abs() > 2**40).any()):
        return None
    return [StepRecord(int(epoch), int(step), *rest) for epoch, step, *rest in table.tolist()]


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, tuple[torch.Size, torch.dtype]]:
    return {name: (value.shape, value.dtype) for name, value in tensors.items()}


def _damaged(path: Path, reason: str) -> PromptotError:
    return PromptotError(
        f"The checkpoint '{path}' is damaged: {reason}.", fix="Start again with --overwrite."
    )
