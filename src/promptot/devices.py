"""Where and how precisely to compute, through Lightning Fabric."""

from __future__ import annotations

import warnings

import torch
from lightning_fabric import Fabric

from promptot.errors import PromptotError, nearest

PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed"}
DEVICES = ("auto", "cpu", "cuda", "mps")


def make_fabric(device: str = "auto", precision: str = "fp32") -> Fabric:
    """A Fabric on one device.

    Args:
        device: "auto", "cpu", "cuda", "cuda:<index>" or "mps".
        precision: "fp32", or "bf16" for bf16 autocast in the towers (prompts, losses and the
            optimiser stay in fp32).

    Raises:
        PromptotError: an unknown device or precision, or a device that this machine lacks.
    """
    if precision not in PRECISIONS:
        raise PromptotError(f"Unknown precision '{precision}'.", fix=nearest(precision, PRECISIONS))
    kind, _, index = device.partition(":")
    if kind not in DEVICES or (index and not (kind == "cuda" and index.isdigit())):
        raise PromptotError(f"Unknown device '{device}'.", fix=nearest(kind, DEVICES))
    if kind == "cuda" and not (
        torch.cuda.is_available() and int(index or 0) < torch.cuda.device_count()
    ):
        raise PromptotError(f"This machine has no device '{device}'.", fix="Use --device cpu.")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise PromptotError("This machine has no device 'mps'.", fix="Use --device cpu.")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # advice on multi-process launching, not used here
        return Fabric(
            accelerator=kind,
            devices=[int(index)] if index else 1,
            precision=PRECISIONS[precision],  # type: ignore[arg-type]
        )
