"""Products with the matrices of a frozen model: by the fastest kernel, with no gradient for them.

On a CPU, PyTorch hands fp32 products to MKL. At the sizes of a transformer oneDNN was a fifth
faster on an AMD EPYC with AVX-512, and a quarter slower on one with AVX2 only; so it is asked for
where the CPU has AVX-512. On an Intel Xeon with AVX-512 it was as fast as MKL forward, and at half
to three quarters of its speed with a transposed matrix, that is backward; so MKL does that there.
(Timing both would choose better, but not the same way twice, and the last bits of a result depend
on the kernel.) In bf16 oneDNN's linear layer saves a pass for the bias.
PyTorch ships that kernel (its compiler uses it) but has no public function for it, so it is looked
up here, and `F.linear` stands in where it is missing.
"""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x Wᵀ + b in the precision of the weight, differentiable; [..., K] → [..., N].

    Args:
        x: [..., K].
        weight: [N, K]; if it needs no gradient, none is computed and `x` is not kept.
        bias: [N].
    """
    if weight.requires_grad:
        return F.linear(x.to(weight.dtype), weight, bias)
    out: Tensor = _FrozenLinear.apply(x, weight, bias)
    return out


def product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """The same without a gradient."""
    x = x.to(weight.dtype)
    kernel = _ONEDNN.get(x.dtype) if x.device.type == "cpu" else None
    transposed = not weight.is_contiguous()
    if kernel is None or (transposed and x.dtype == torch.float32 and _MKL_BACKWARD):
        return F.linear(x, weight, bias)
    return kernel(x, weight, bias, "none", [], "")


class _FrozenLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype
        return product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        (weight,) = ctx.saved_tensors
        return product(gradients[0], weight.T).to(ctx.dtype), None, None


def _find_onednn(dtype: torch.dtype) -> Callable[..., Tensor] | None:
    """oneDNN's linear layer, if PyTorch and the CPU have it in the form that is called here."""
    if not torch.backends.mkldnn.is_available():
        return None
    if dtype == torch.float32 and torch.backends.cpu.get_cpu_capability() != "AVX512":
        return None
    x, weight, bias = torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)
    x, weight, bias = x.to(dtype), weight.to(dtype), bias.to(dtype)
    try:
        kernel: Callable[..., Tensor] = torch.ops.mkldnn._linear_pointwise
        forward = kernel(x, weight, bias, "none", [], "")
        backward = kernel(forward, weight.T, None, "none", [], "")
    except (AttributeError, RuntimeError, TypeError):
        return None
    right = bool((forward == 4).all()) and bool((backward == 16).all())
    return kernel if right else None


def has_instructions(dtype: torch.dtype) -> bool:
    """Whether this processor multiplies matrices of a 16-bit type faster than those of fp32.

    It is asked of x86 alone, where without them a step in bf16 took three times as long as in fp32;
    others are believed to.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return True
    names = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    asked = names if dtype == torch.bfloat16 else names[:1]
    return any(getattr(torch.cpu, name, lambda: True)() for name in asked)


def _is_intel() -> bool:
    """Whether the CPU is one of Intel's, as far as it can be told."""
    try:
        with open("/proc/cpuinfo", encoding="ascii", errors="replace") as file:  # noqa: PTH123
            return "GenuineIntel" in file.read(4096)
    except OSError:  # not Linux
        return "GenuineIntel" in platform.processor() or platform.processor() == "i386"


_MKL_BACKWARD = torch.backends.mkl.is_available() and _is_intel()
_ONEDNN = {dtype: _find_onednn(dtype) for dtype in (torch.float32, torch.bfloat16)}
