"""Two checks that every part of the transport code needs."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from promptot.errors import PromptotError


def at_least_float32(tensor: Tensor) -> Tensor:
    """`tensor` in fp32 if it is bf16 or fp16; fp32 and fp64 pass unchanged.

    Costs and plans are differences of nearly equal numbers: 16 bits are not enough for them.

    Example:
        >>> import torch
        >>> at_least_float32(torch.ones(2, dtype=torch.bfloat16)).dtype
        torch.float32
    """
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor


def require_positive(**values: float) -> None:
    """Refuse options that are zero, negative or not finite.

    Raises:
        PromptotError: names the first such option.

    Example:
        >>> require_positive(epsilon=0.05)
        >>> require_positive(epsilon=-1.0)
        Traceback (most recent call last):
        promptot.errors.PromptotError: 'epsilon' is -1.0. Give a number above zero.
    """
    for name, value in values.items():
        if not (math.isfinite(value) and value > 0):
            raise PromptotError(f"'{name}' is {value}.", fix="Give a number above zero.")
