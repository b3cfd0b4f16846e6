"""What a prompt design hands to the two towers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True)
class PromptTokens:
    """Learnable tokens, one tensor a block from the first block on; empty for an unprompted tower.

    Attributes:
        text: context tokens, each [n, W_text], or [C, n, W_text] when class-specific.
        vision: tokens appended to the patches, each [m, W_vision].
        shift: from L2-normalised image features [B, D] to what each image adds to every token of
            `text[0]`, [B, W_text]; None where the context is the same for every image.
    """

    text: tuple[Tensor, ...] = ()
    vision: tuple[Tensor, ...] = ()
    shift: Callable[[Tensor], Tensor] | None = None
