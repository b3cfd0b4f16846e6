"""What is read from modules of other libraries: shapes, and weights under our names.

A reader gives None for a module that it does not know in every detail. Then the module is used as
it is, or refused; nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.linear import NonDynamicallyQuantizableLinear  # of PyTorch's attention

from promptot.backbones.architecture import ImageShape, PaddedTextShape, TextShape

Weights = dict[str, Tensor]


@dataclass(frozen=True)
class ImagePart:
    """An image tower as it was found.

    Attributes:
        shape: to build ours.
        weights: under our names, without "image_tower.".
        stem: with its weights in it, where the shape names none.
    """

    shape: ImageShape
    weights: Weights
    stem: nn.Module | None = None


@dataclass(frozen=True)
class TextPart:
    """A text tower as it was found; `weights` under our names, without "text_tower."."""

    shape: TextShape | PaddedTextShape
    weights: Weights


@dataclass
class Norms:
    """The norms of a tower, which must all have the same ε.

    Attributes:
        eps: what was found.
    """

    eps: set[float] = field(default_factory=set)

    def read(self, norm: nn.Module, name: str) -> Weights | None:
        """Weights of a layer norm, {} of none; None of another kind."""
        if isinstance(norm, nn.Identity):
            return {}
        if not isinstance(norm, nn.LayerNorm) or norm.weight is None or norm.bias is None:
            return None
        self.eps.add(norm.eps)
        return {f"{name}.weight": norm.weight, f"{name}.bias": norm.bias}

    @property
    def one(self) -> float | None:
        """The ε of all; None if they differ."""
        return next(iter(self.eps)) if len(self.eps) == 1 else None


def activation_of(module: Any) -> str | None:
    """The name of an activation that is known here."""
    kind = type(module).__name__
    if kind == "GELU":
        approximate = getattr(module, "approximate", "none")
        return {"none": "gelu", "tanh": "gelu_tanh"}.get(approximate)
    return {"GELUTanh": "gelu_tanh", "QuickGELU": "quick_gelu", "SiLU": "silu", "ReLU": "relu"}.get(
        kind
    )


def linear_of(
    layer: Any, name: str, scale: Tensor | None = None, *, joined: str = "."
) -> Weights | None:
    """Weights of a linear layer, with zeros for a bias that it lacks; None of another module.

    Args:
        scale: a factor on each output (LayerScale), which goes into the matrix.
        joined: what stands between the name and "weight".
    """
    if type(layer) not in (nn.Linear, NonDynamicallyQuantizableLinear):
        return None
    weight: Tensor = layer.weight
    bias: Tensor | None = layer.bias
    if bias is None:
        bias = torch.zeros(len(weight), dtype=weight.dtype, device=weight.device)
    if scale is not None:
        weight, bias = scale[:, None] * weight, scale * bias
    return {f"{name}{joined}weight": weight, f"{name}{joined}bias": bias}


def merged(parts: Iterable[Weights | None]) -> Weights | None:
    """All of them in one; None if one was not known."""
    together: Weights = {}
    for part in parts:
        if part is None:
            return None
        together |= part
    return together
