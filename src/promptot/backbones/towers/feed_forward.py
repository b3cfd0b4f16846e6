"""The frozen feed-forward part of a block: x + mlp(norm(x)), with constants for weights.

Few passes over memory, and little kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, Sequence
from itertools import chain
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.weak import WeakIdKeyDictionary

from promptot.backbones.towers.products import product

QUICK_GELU_SCALE = 1.702


def quick_gelu(x: Tensor) -> Tensor:
    """CLIP's approximation, x · sigmoid(1.702 x)."""
    return x * torch.sigmoid(QUICK_GELU_SCALE * x)


def gelu_tanh(x: Tensor) -> Tensor:
    """GELU by its approximation with a hyperbolic tangent."""
    return F.gelu(x, approximate="tanh")


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "quick_gelu": quick_gelu,
    "gelu_tanh": gelu_tanh,
    "silu": F.silu,
    "relu": F.relu,
}
ROWS_ON_CPU = 512
"""Rows that a frozen MLP computes at a time there: what lies between its products stays small and
in the cache. A GPU takes all at once."""

_aten = torch.ops.aten


class FrozenFeedForward(torch.autograd.Function):
    """x + mlp(norm(x)) when the weights are constants: few passes, little kept for backward.

    With a = 1.702, QuickGELU(x) = silu(a x) / a, whose derivative is silu'(a x). The norm's weight
    carries the factor a in, and the residual sum takes it out again, so that the activation is one
    kernel forward and one backward; in the backward pass the two factors cancel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [..., W]
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        fc_weight: Tensor,
        fc_bias: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
        activation: str,
    ) -> Tensor:
        a = QUICK_GELU_SCALE if activation == "quick_gelu" else 1.0
        activate = _IN_PLACE[activation]
        rows = x.reshape(-1, x.shape[-1])
        norm_weight_a, norm_bias_a, fc_bias_a, proj_bias_a = (
            _times(a, constant) for constant in (norm_weight, norm_bias, fc_bias, proj_bias)
        )
        out = torch.empty_like(rows)
        kept: list[list[Tensor]] = []
        for part, into in zip(_parts(rows), _parts(out), strict=True):
            normed, mean, rstd = norm_rows(part, norm_weight_a, norm_bias_a, eps)
            hidden = product(normed, fc_weight, fc_bias_a)  # [..., 4W], a times that of the MLP
            if ctx.needs_input_grad[0]:
                kept.append([mean, rstd, hidden])
                active = activate(hidden, False)
            else:
                active = activate(hidden, True)
            torch.add(part, product(active, proj_weight, proj_bias_a), alpha=1 / a, out=into)
        if kept:
            ctx.save_for_backward(
                rows, norm_weight, norm_bias, fc_weight, proj_weight, *chain.from_iterable(kept)
            )
            ctx.activation = activation
        return out.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        rows, norm_weight, norm_bias, fc_weight, proj_weight, *kept = ctx.saved_tensors
        backward = _BACKWARD[ctx.activation]
        gradient = gradients[0].reshape(rows.shape)
        out = torch.empty_like(rows)
        parts = zip(_parts(rows), _parts(gradient), _parts(out), strict=True)
        for number, (part, above, into) in enumerate(parts):
            mean, rstd, hidden = kept[3 * number : 3 * number + 3]
            below = backward(product(above, proj_weight.T), hidden)
            below = product(below, fc_weight.T)
            through = norm_backward(below, part, (mean, rstd), norm_weight, norm_bias)
            torch.add(above, through, out=into)
        return out.view_as(gradients[0]), *[None] * 8


_PRODUCTS: MutableMapping[Tensor, tuple[tuple[int, int], Tensor]] = WeakIdKeyDictionary()


def _times(factor: float, constant: Tensor) -> Tensor:
    """`factor` (the same one for a tensor each time) times a constant of a model, worked out once.

    On a GPU four small products a block are a hundred kernels a step.
    """
    if factor == 1:
        return constant
    if torch.compiler.is_compiling() or constant.is_inference():  # can't be told from another
        return factor * constant
    state = constant.data_ptr(), constant._version
    known = _PRODUCTS.get(constant)
    if known is None or known[0] != state or known[1].device != constant.device:
        known = _PRODUCTS[constant] = state, factor * constant.detach()
    return known[1]


class FrozenGatedFeedForward(torch.autograd.Function):
    """The same with a gate, a norm on what goes in, or a norm on what lies between the products.

    The last arguments are weights and biases of the gate and of both norms; None of what there
    is not. The inner norms have the ε of the outer one.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,  # [..., W]
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        fc_weight: Tensor,
        fc_bias: Tensor,
        proj_weight: Tensor,
        proj_bias: Tensor,
        activation: str,
        gate_weight: Tensor | None,
        gate_bias: Tensor | None,
        input_weight: Tensor | None,
        input_bias: Tensor | None,
        hidden_weight: Tensor | None,
        hidden_bias: Tensor | None,
    ) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = torch.empty_like(rows)
        activate = ACTIVATIONS[activation]
        kept: list[Tensor] = []
        for part, into in zip(_parts(rows), _parts(out), strict=True):
            normed, *outer = norm_rows(part, norm_weight, norm_bias, eps)
            inner: list[Tensor] = []
            behind: list[Tensor] = []
            if input_weight is not None:
                normed, *inner = norm_rows(normed, input_weight, input_bias, eps)
            hidden = product(normed, fc_weight, fc_bias)
            gate = hidden if gate_weight is None else product(normed, gate_weight, gate_bias)
            active = activate(gate) if gate_weight is None else activate(gate) * hidden
            if hidden_weight is not None:
                active, *behind = norm_rows(active, hidden_weight, hidden_bias, eps)
            torch.add(part, product(active, proj_weight, proj_bias), out=into)
            if ctx.needs_input_grad[0]:
                kept += [hidden, gate, *outer, *inner, *behind]
        if kept:
            ctx.save_for_backward(
                rows, norm_weight, norm_bias, fc_weight, proj_weight, gate_weight, input_weight,
                input_bias, hidden_weight, hidden_bias, *kept,
            )  # fmt: skip
            ctx.activation, ctx.eps = activation, eps
        return out.view_as(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (rows, norm_weight, norm_bias, fc_weight, proj_weight, gate_weight, input_weight,
         input_bias, hidden_weight, hidden_bias, *kept) = ctx.saved_tensors  # fmt: skip
        activate, activate_backward = ACTIVATIONS[ctx.activation], _PLAIN_BACKWARD[ctx.activation]
        gradient = gradients[0].reshape(rows.shape)
        out = torch.empty_like(rows)
        left = iter(kept)
        for part, above, into in zip(_parts(rows), _parts(gradient), _parts(out), strict=True):
            hidden, gate, *outer = (next(left) for _ in range(4))
            inner = [next(left), next(left)] if input_weight is not None else []
            behind = [next(left), next(left)] if hidden_weight is not None else []
            below = product(above, proj_weight.T)
            opened = activate(gate) if gate_weight is not None or behind else gate
            if behind:
                active = opened * hidden if gate_weight is not None else opened
                below = norm_backward(below, active, behind, hidden_weight, hidden_bias)
            if gate_weight is not None:
                through_gate = activate_backward(below * hidden, gate)
                below = product(below * opened, fc_weight.T)
                below = below + product(through_gate, gate_weight.T)
            else:
                below = product(activate_backward(below, hidden), fc_weight.T)
            if inner:
                normed, *_ = norm_rows(part, norm_weight, norm_bias, ctx.eps)
                below = norm_backward(below, normed, inner, input_weight, input_bias)
            through = norm_backward(below, part, outer, norm_weight, norm_bias)
            torch.add(above, through, out=into)
        return out.view_as(gradients[0]), *[None] * 14


def norm_rows(
    x: Tensor, weight: Tensor, bias: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The norm of rows in the precision of its weight, their means and reciprocal deviations."""
    return torch.native_layer_norm(x.to(weight.dtype), [x.shape[-1]], weight, bias, eps)


def norm_backward(
    above: Tensor, x: Tensor, seen: Sequence[Tensor], weight: Tensor, bias: Tensor | None
) -> Tensor:
    """In the precision of `x`, whose means and reciprocal deviations were `seen`."""
    found, _, _ = _aten.native_layer_norm_backward(
        above.to(weight.dtype), x.to(weight.dtype), [x.shape[-1]], *seen, weight, bias,
        [True, False, False],
    )  # fmt: skip
    return found.to(x.dtype)


_IN_PLACE: dict[str, Callable[[Tensor, bool], Tensor]] = {
    "quick_gelu": F.silu,  # of what was multiplied by 1.702 before
    "silu": F.silu,
    "gelu": lambda x, _: F.gelu(x),
    "gelu_tanh": lambda x, _: gelu_tanh(x),
    "relu": F.relu,
}
"""The activations, over the memory of their input where that is asked for and can be."""

_BACKWARD: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "quick_gelu": _aten.silu_backward,
    "silu": _aten.silu_backward,
    "gelu": _aten.gelu_backward,
    "gelu_tanh": lambda above, x: _aten.gelu_backward(above, x, approximate="tanh"),
    "relu": lambda above, x: _aten.threshold_backward(above, x, 0),
}
_PLAIN_BACKWARD = _BACKWARD | {
    "quick_gelu": lambda above, x: _aten.silu_backward(above, QUICK_GELU_SCALE * x)
}
"""The same of activations whose input was not multiplied before."""


def _parts(rows: Tensor) -> tuple[Tensor, ...]:
    return rows.split(ROWS_ON_CPU if rows.device.type == "cpu" else max(1, len(rows)))
