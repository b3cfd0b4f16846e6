"""The frozen attention part of a block: x + attention(norm(x)) with constant weights.

What autograd makes of the single steps is right too, and moves more memory: a copy for each of
queries, keys and values, zeros for what a slice left out, sums of gradients. Here the gradient is
written once into one buffer. On a CPU the kernels are those that PyTorch's attention picks, so the
results are the same to the bit. On CUDA it would pick one whose backward pass adds up in an order
that differs from run to run; PyTorch's flash attention can keep to one.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
import torch.utils.deterministic
from torch import Tensor

from promptot.backbones.towers.feed_forward import norm_backward, norm_rows
from promptot.backbones.towers.products import product
from promptot.backbones.towers.rotation import turn

_aten = torch.ops.aten


class FrozenAttention(torch.autograd.Function):
    """The first `kept` positions of x + attention(norm(x)); all of `x` [B, L, W] is looked at."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        kept: int,
        heads: int,
        norm_weight: Tensor,
        norm_bias: Tensor,
        eps: float,
        in_weight: Tensor,
        in_bias: Tensor,
        out_weight: Tensor,
        out_bias: Tensor,
        inner_weight: Tensor | None,
        inner_bias: Tensor | None,
        rotation: Tensor | None,
        visible: Tensor | None,
    ) -> Tensor:
        normed, mean, rstd = norm_rows(x, norm_weight, norm_bias, eps)
        qkv = product(normed, in_weight, in_bias)
        q, k, v = (_heads(part, heads) for part in qkv.chunk(3, dim=-1))  # [B, H, L, d]
        if rotation is not None:
            q, k = turn(q, *rotation[:, : q.shape[-2]]), turn(k, *rotation[:, : k.shape[-2]])
        q = q[:, :, :kept]
        mask = None
        if visible is not None:
            mask = torch.zeros_like(visible, dtype=q.dtype).masked_fill_(~visible, float("-inf"))
        out, *sums = _KERNELS[q.device.type].forward(q, k, v, mask)
        rows = out.transpose(1, 2).flatten(2)  # [B, kept, W]
        seen: list[Tensor] = []
        normed_rows = rows
        if inner_weight is not None:
            normed_rows, *seen = norm_rows(rows, inner_weight, inner_bias, eps)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(
                x, mean, rstd, q, k, v, out, norm_weight, norm_bias, in_weight, out_weight,
                inner_weight, inner_bias, rotation, mask, *seen, *sums,
            )  # fmt: skip
            ctx.seen = len(seen)
        return x[:, :kept] + product(normed_rows, out_weight, out_bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (x, mean, rstd, q, k, v, out, norm_weight, norm_bias, in_weight, out_weight,
         inner_weight, inner_bias, rotation, mask, *seen) = ctx.saved_tensors  # fmt: skip
        seen, sums = seen[: ctx.seen], seen[ctx.seen :]
        above = gradients[0]
        kept, length, heads = q.shape[2], k.shape[2], q.shape[1]
        below = product(above, out_weight.T)
        if inner_weight is not None:
            rows = out.transpose(1, 2).flatten(2)
            below = norm_backward(below, rows, seen, inner_weight, inner_bias)
        kernel = _KERNELS[q.device.type]
        dq, dk, dv = kernel.backward(_heads(below, heads), q, k, v, out, mask, *sums)
        if rotation is not None:
            dq, dk = (
                turn(part, rotation[0, : part.shape[-2]], -rotation[1, : part.shape[-2]])
                for part in (dq, dk)
            )
        dq, dk, dv = (part.transpose(1, 2) for part in (dq, dk, dv))  # [B, L, H, d]
        if kept < length:
            dq = F.pad(dq, (0, 0, 0, 0, 0, length - kept))
        together = torch.cat([dq, dk, dv], dim=2)
        below = product(together.flatten(2), in_weight.T)
        found = norm_backward(below, x, (mean, rstd), norm_weight, norm_bias)
        found[:, :kept] += above
        return found, *[None] * 13


def _heads(x: Tensor, heads: int) -> Tensor:
    """[B, L, W] → [B, H, L, d]."""
    return x.unflatten(-1, (heads, -1)).transpose(1, 2)


class _OnCPU:
    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        found: tuple[Tensor, ...] = _aten._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, attn_mask=mask
        )
        return found

    @staticmethod
    def backward(
        above: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, mask: Tensor | None,
        *seen: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        found: tuple[Tensor, ...] = _aten._scaled_dot_product_flash_attention_for_cpu_backward(
            above, q, k, v, out, *seen, 0.0, False, attn_mask=mask
        )
        return found


class _OnCUDA:
    """In 16 bits, without a mask."""

    @staticmethod
    def forward(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        assert mask is None
        out, sums, _, _, _, _, seed, offset, _ = _aten._scaled_dot_product_flash_attention(q, k, v)
        return out, sums, seed, offset

    @staticmethod
    def backward(
        above: Tensor, q: Tensor, k: Tensor, v: Tensor, out: Tensor, mask: Tensor | None,
        *seen: Tensor,
    ) -> tuple[Tensor, ...]:  # fmt: skip
        sums, seed, offset = seen
        # dQ of two parts of the keys is one sum in either order
        two_parts = k.shape[2] <= (256 if k.shape[3] <= 64 else 128)
        with contextlib.nullcontext() if two_parts else _in_order():
            found: tuple[Tensor, ...] = _aten._scaled_dot_product_flash_attention_backward(
                above, q, k, v, out, sums, None, None, q.shape[2], k.shape[2], 0.0, False,
                seed, offset,
            )  # fmt: skip
        return found


_KERNELS: dict[str, type[_OnCPU | _OnCUDA]] = {"cpu": _OnCPU, "cuda": _OnCUDA}


@contextlib.contextmanager
def _in_order() -> Iterator[None]:
    """Within it PyTorch's kernels add up in one order (those that only warn do not)."""
    algorithms = torch.are_deterministic_algorithms_enabled()
    warns = torch.is_deterministic_algorithms_warn_only_enabled()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(algorithms, warn_only=warns)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]


ON_CPU = all(
    hasattr(_aten, f"_scaled_dot_product_flash_attention_for_cpu{part}")
    for part in ("", "_backward")
)


def works_on(kind: str, dtype: torch.dtype, size: int) -> bool:
    """Whether there are kernels for a kind of device, a precision and the size of a head."""
    if kind == "cpu":
        return ON_CPU and dtype == torch.float32
    return kind == "cuda" and dtype in (torch.bfloat16, torch.float16) and _is_right(dtype, size)


@functools.lru_cache
def _is_right(dtype: torch.dtype, size: int) -> bool:
    """Of the kernels on CUDA: PyTorch has no public functions for them, so they are tried out."""
    generator = torch.Generator().manual_seed(0)
    q, k, v, above = (
        torch.randn(2, 2, 9, size, generator=generator).to("cuda", dtype) for _ in range(4)
    )
    try:
        out, *seen = _OnCUDA.forward(q, k, v, None)
        found = out, *_OnCUDA.backward(above, q, k, v, out, None, *seen)
    except (AttributeError, RuntimeError, TypeError, ValueError):
        return False
    with torch.enable_grad():
        exact = [x.float().requires_grad_() for x in (q, k, v)]
        expected = ((exact[0] @ exact[1].mT) * size**-0.5).softmax(dim=-1) @ exact[2]
        gradients = torch.autograd.grad(expected, exact, above.float())
    pairs = zip(found, (expected.detach(), *gradients), strict=True)
    return all(torch.allclose(a.float(), b, rtol=0.05, atol=0.1) for a, b in pairs)
