"""Independent vision-language prompts (IVLP): both towers get tokens of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptot.prompts.tokens import PromptTokens

INIT_STD = 0.02


class IVLPPrompts(nn.Module):
    """Learnable tokens for the text tower, the image tower, or both, each down to its own depth.

    Tokens of the first block join the sequence; those of each later block replace them there.
    All start as N(0, 0.02²), except the text tokens of the first block if `initial_context` is
    given.

    Args:
        text_width, vision_width: widths of the towers.
        text_tokens, vision_tokens: tokens a block (n and m); 0 leaves that tower unprompted.
        text_depth, vision_depth: number of prompted blocks.
        initial_context: start of the first block's text tokens, [n, W_text].
        classes: if given, every class has text tokens of its own (class-specific context).
        generator: source of the random start.

    Example:
        >>> prompts = IVLPPrompts(512, 768, text_depth=12, vision_depth=12)
        >>> sum(p.numel() for p in prompts.parameters())
        61440
    """

    def __init__(
        self,
        text_width: int,
        vision_width: int,
        text_tokens: int = 4,
        text_depth: int = 9,
        vision_tokens: int = 4,
        vision_depth: int = 9,
        initial_context: Tensor | None = None,
        classes: int | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.text_tokens = text_tokens
        shape = (text_tokens, text_width) if classes is None else (classes, text_tokens, text_width)
        self.text = _token_list(text_depth if text_tokens else 0, shape, generator)
        self.vision = _token_list(
            vision_depth if vision_tokens else 0, (vision_tokens, vision_width), generator
        )
        if initial_context is not None and len(self.text) > 0:
            with torch.no_grad():
                self.text[0].copy_(initial_context.expand(shape))

    def forward(self) -> PromptTokens:
        return PromptTokens(text=tuple(self.text), vision=tuple(self.vision))


def _token_list(
    depth: int, shape: tuple[int, ...], generator: torch.Generator | None
) -> nn.ParameterList:
    return nn.ParameterList(
        nn.Parameter(INIT_STD * torch.randn(shape, generator=generator)) for _ in range(depth)
    )
