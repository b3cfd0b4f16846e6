"""MaPLe: the image tower's tokens are linear images of the text tower's."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from promptot.adaptation.adaptation import Adaptation, random_linear, random_tokens, set_first
from promptot.backbones.injection import Injection


class MaPLePrompts(Adaptation):
    """Learnable text tokens for each block; a projection a block makes the vision tokens of them.

    Khattak et al., "MaPLe: Multi-modal Prompt Learning" (2023, arXiv:2210.03117), section 3.2. The
    tokens start as N(0, 0.02²), the first block's as `initial_context` if that is given; the
    projections as `nn.Linear` does. In the reference code those of the later blocks start as copies
    of one another (`cloned_projections`); they are parameters of their own either way.

    Args:
        text_width, vision_width: widths of the towers.
        tokens: tokens a block (n), the same number in both towers.
        depth: number of prompted blocks, in both towers.
        initial_context: start of the first block's text tokens, [n, W_text].
        fixed_words: see `Adaptation`.
        generator: source of the random start.
        cloned_projections: start the projections of all blocks but the first from one draw.

    Example:
        >>> prompts = MaPLePrompts(512, 768, tokens=2, depth=9)
        >>> sum(p.numel() for p in prompts.parameters())
        3555072
    """

    name = "maple"

    def __init__(
        self,
        text_width: int,
        vision_width: int,
        tokens: int = 2,
        depth: int = 9,
        initial_context: Tensor | None = None,
        fixed_words: str = "",
        generator: torch.Generator | None = None,
        cloned_projections: bool = False,
    ) -> None:
        sizes = {"text_width": text_width, "vision_width": vision_width}
        super().__init__(fixed_words, **sizes, tokens=tokens, depth=depth)
        self.text = random_tokens(depth, (tokens, text_width), generator)
        draws = min(depth, 2) if cloned_projections else depth
        drawn = [random_linear(text_width, vision_width, generator) for _ in range(draws)]
        copies = [copy.deepcopy(drawn[-1]) for _ in range(depth - draws)]
        self.projections = nn.ModuleList([*drawn, *copies])
        set_first(self.text, initial_context)

    def forward(self) -> Injection:
        text = tuple(self.text)
        vision = tuple(
            project(tokens) for project, tokens in zip(self.projections, text, strict=True)
        )
        return Injection(text, vision)
