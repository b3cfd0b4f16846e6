"""Rotary position embeddings: queries and keys turned by an angle of their place."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor


def rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Neighbouring pairs of features rotated by an angle of their place (RoPE).

    Args:
        x: queries or keys [..., L, d].
        rotation: cosines and sines [2, P, d] of the first P places; later ones stay as they are.
    """
    own = rotation[:, : x.shape[-2]]
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined]
    if tracing:  # exporters don't know functions of ours
        return turn(x, own[0], own[1])
    out: Tensor = _Rotation.apply(x, own)
    return out


class _Rotation(torch.autograd.Function):
    """The gradient of a rotation is the rotation back."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rotation: Tensor) -> Tensor:
        ctx.save_for_backward(rotation)
        return turn(x, rotation[0], rotation[1])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (rotation,) = ctx.saved_tensors
        return turn(gradients[0], rotation[0], -rotation[1]), None


def turn(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """The first P places of x [..., L, d] rotated, [P, d] cosines and sines; the others as is."""
    places = len(cosines)
    first = x[..., :places, :]
    pairs = first.unflatten(-1, (-1, 2))
    turned = torch.stack([-pairs[..., 1], pairs[..., 0]], dim=-1).flatten(-2)
    rotated = (first * cosines).addcmul_(turned, sines).to(x.dtype)
    return rotated if places == x.shape[-2] else torch.cat([rotated, x[..., places:, :]], dim=-2)
