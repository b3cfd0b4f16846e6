"""Independent vision-language prompts (IVLP): both towers get tokens of their own."""

from __future__ import annotations

import torch
from torch import Tensor

from promptot.adaptation.adaptation import Adaptation, random_tokens, set_first
from promptot.backbones.injection import Injection


class IVLPPrompts(Adaptation):
    """Learnable tokens for the text tower, the image tower, or both, each down to its own depth.

    Tokens of the first block join the sequence; those of each later block replace them there.
    All start as N(0, 0.02²), except the text tokens of the first block if `initial_context` is
    given. With `vision_tokens=0` and `text_depth=1` this is CoOp (Zhou et al., 2022,
    arXiv:2109.01134), with `text_tokens=0` VPT (Jia et al., 2022, arXiv:2203.12119).

    Args:
        text_width, vision_width: widths of the towers.
        text_tokens, vision_tokens: tokens a block (n and m); 0 leaves that tower unprompted.
        text_depth, vision_depth: number of prompted blocks.
        initial_context: start of the first block's text tokens, [n, W_text].
        classes: if given, every class has text tokens of its own (class-specific context).
        fixed_words: see `Adaptation`.
        generator: source of the random start.

    Example:
        >>> prompts = IVLPPrompts(512, 768, text_depth=12, vision_depth=12)
        >>> sum(p.numel() for p in prompts.parameters())
        61440
    """

    name = "ivlp"

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
        fixed_words: str = "",
        generator: torch.Generator | None = None,
    ) -> None:
        sizes = {
            "text_width": text_width,
            "vision_width": vision_width,
            "text_tokens": text_tokens,
            "text_depth": text_depth,
            "vision_tokens": vision_tokens,
            "vision_depth": vision_depth,
        }
        super().__init__(fixed_words, classes if text_tokens else None, **sizes, classes=classes)
        shape = (text_tokens, text_width) if classes is None else (classes, text_tokens, text_width)
        self.text = random_tokens(text_depth if text_tokens else 0, shape, generator)
        self.vision = random_tokens(
            vision_depth if vision_tokens else 0, (vision_tokens, vision_width), generator
        )
        set_first(self.text, initial_context)

    def forward(self) -> Injection:
        return Injection(tuple(self.text), tuple(self.vision))
