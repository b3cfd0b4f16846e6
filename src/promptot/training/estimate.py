"""What a run will cost, before it starts: memory from the shapes, time from a few steps."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from promptot.adaptation.student import Student
from promptot.data.memory_bounds import free_bytes
from promptot.devices import out_of_memory
from promptot.errors import PromptotError

GIB = 2**30
LESS_MEMORY = (
    "Lower optim.batch_size, prompts.text_depth, prompts.vision_depth or vocabulary.per_step, use "
    "--precision bf16, or train on fewer classes"
)


@dataclass(frozen=True)
class Estimate:
    """Cost of training.

    Attributes:
        step_seconds: one optimiser step, loading of its images included.
        steps: optimiser steps an epoch.
        memory_bytes: peak of the whole process, or of the GPU where that is used.
        available_bytes: what there is of it, this process's part included.
    """

    step_seconds: float
    steps: int
    memory_bytes: int
    available_bytes: int

    @property
    def epoch_seconds(self) -> float:
        return self.step_seconds * self.steps


def activation_bytes(model: Student, batch: int, words: int = 0) -> int:
    """Bytes that a training step of B images and A anchor words keeps for its backward pass.

    The teacher keeps nothing; of the student, the image tower keeps B · (1 + N + m) tokens a block,
    and the text tower the shared prefix once and the own tokens of each class and anchor word; all
    of that B times where the text depends on the image.
    """
    injection = model.injection()
    total = model.backbone.image_tower.activation_bytes(batch, injection)
    if model.packed is not None:
        read = torch.arange(min(words, len(model.vocabulary)))
        packed = model.pack(read) if len(read) else model.packed
        total += model.backbone.text_tower.activation_bytes(packed, injection, batch)
    return total


def memory_estimate(model: Student, batch_size: int, words: int = 0) -> int:
    """Peak bytes of training: what is held now, what backward keeps, and the largest temporary."""
    device = model.backbone.device
    held = torch.cuda.memory_allocated(device) if device.type == "cuda" else resident_bytes()
    kept = activation_bytes(model, batch_size, words)
    layers = max(model.backbone.image_tower.layers, model.backbone.text_tower.layers)
    return held + kept + 2 * kept // layers


def available_bytes(device: torch.device) -> int:
    """Memory that this process may use in all: what is free, and what it has already."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device)
    return free_bytes() + resident_bytes()


def check_memory(
    model: Student, batch_size: int, words: int = 0, available: int | None = None
) -> tuple[int, int]:
    """Estimated and available bytes for batches of images and `words` anchor words a step.

    Where it would be too much and the text encoder can compute again in the backward pass what it
    would keep, it is told to.

    Args:
        available: by default what `available_bytes` says.

    Raises:
        PromptotError: the estimate is more than there is.
    """
    needed = memory_estimate(model, batch_size, words)
    available = available_bytes(model.backbone.device) if available is None else available
    text = model.backbone.text_tower
    if needed > available and text.recompute is False:
        text.recompute = True
        needed = memory_estimate(model, batch_size, words)
    if needed > available:
        more = f" and {words} anchor words" if words else ""
        raise PromptotError(
            f"Training needs about {needed / GIB:.1f} GiB of memory for "
            f"{len(model.class_names)} classes{more} in batches of {batch_size}; "
            f"{available / GIB:.1f} GiB are there.",
            fix=f"{LESS_MEMORY}.",
        )
    return needed, available


@contextmanager
def lack_explained() -> Iterator[None]:
    """Say what to do where a GPU's memory was not enough after all.

    Raises:
        PromptotError: instead of PyTorch's `OutOfMemoryError`.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        fix = (
            f"{LESS_MEMORY}; or wait until other processes have left the GPU. "
            "The last checkpoint, if there is one, is intact."
        )
        raise out_of_memory(error, " for training", fix) from error


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, AttributeError):
        return 0
