"""CoCoOp: a text context that every image shifts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from promptot.adaptation.adaptation import Adaptation, random_linear, random_tokens, set_first
from promptot.backbones.injection import Injection

BOTTLENECK = 16


class CoCoOpPrompts(Adaptation):
    """One text context and a small network that shifts it, image by image.

    Zhou et al., "Conditional Prompt Learning for Vision-Language Models" (2022, arXiv:2203.05557),
    section 3.2: the class names are read behind ctx_j + h(v(x)), with h a linear layer D → D/16,
    ReLU, and a linear layer D/16 → W_text on the L2-normalised image feature v(x). The layers start
    as `nn.Linear` does. So the text features depend on the image: [B, C, D].

    Args:
        text_width: width of the text tower.
        embed_dim: D.
        tokens: number of context tokens (n).
        initial_context: start of the context, [n, W_text]; N(0, 0.02²) if None.
        fixed_words: see `Adaptation`.
        generator: source of the random start.

    Example:
        >>> prompts = CoCoOpPrompts(512, 512)
        >>> sum(p.numel() for p in prompts.parameters())
        35360
    """

    name = "cocoop"

    def __init__(
        self,
        text_width: int,
        embed_dim: int,
        tokens: int = 4,
        initial_context: Tensor | None = None,
        fixed_words: str = "",
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(fixed_words, text_width=text_width, embed_dim=embed_dim, tokens=tokens)
        hidden = max(1, embed_dim // BOTTLENECK)
        self.text = random_tokens(1, (tokens, text_width), generator)
        self.meta_net = nn.Sequential(
            random_linear(embed_dim, hidden, generator),
            nn.ReLU(),
            random_linear(hidden, text_width, generator),
        )
        set_first(self.text, initial_context)

    def forward(self) -> Injection:
        return Injection(tuple(self.text), text_shift=self.meta_net)
