"""What learns in the encoders: its call gives what is injected into them in this step."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor, nn

from promptot.backbones.injection import Injection

INIT_STD = 0.02
MOST_BLOCKS = 1024

Arguments = dict[str, int | float | str | None]


class Adaptation(nn.Module):
    """Learnable parameters that become an `Injection`; this one has none and injects nothing.

    A design is rebuilt by `type(design)(**design.arguments)` and its state dict; an adapter keeps
    both. To add one, write a subclass and give it a line in `promptot.adaptation.build_prompts`.

    Args:
        fixed_words: words that stay frozen between the learned context and the class name.
        own_classes: the number of classes that have parameters of their own; None if all share
            them, so that they serve any class name.
        arguments: those of the subclass's constructor that decide its shapes.

    Attributes:
        classes: `own_classes`.
        name: as recipes and adapter cards call the design; empty where nothing learns.
    """

    name: ClassVar[str] = ""

    def __init__(
        self, fixed_words: str = "", own_classes: int | None = None, **arguments: float | str | None
    ) -> None:
        super().__init__()
        self.arguments: Arguments = {**arguments, "fixed_words": fixed_words}
        self.fixed_words = fixed_words
        self.classes = own_classes

    def draw(self, epoch: int, step: int) -> None:
        """Decide what is random in a training step; called before it, on the host."""

    @contextlib.contextmanager
    def in_training(self) -> Iterator[None]:
        """Within it the injection is that of a training step, with what that drops."""
        self.train()
        try:
            yield
        finally:
            self.eval()

    def forward(self) -> Injection:
        """What is injected in this step; gradients flow through it to the parameters."""
        return Injection()


def random_tokens(
    depth: int, shape: tuple[int, ...], generator: torch.Generator | None
) -> nn.ParameterList:
    """`depth` tensors of tokens from N(0, 0.02²).

    Raises:
        ValueError: no tower has so many blocks.
    """
    if depth > MOST_BLOCKS:
        raise ValueError(f"a depth of {depth} is more than {MOST_BLOCKS}")
    return nn.ParameterList(
        nn.Parameter(INIT_STD * torch.randn(shape, generator=generator)) for _ in range(depth)
    )


def set_first(tokens: nn.ParameterList, start: Tensor | None) -> None:
    """Give the first block's tokens a start [n, W], if there are both."""
    if start is not None and len(tokens) > 0:
        with torch.no_grad():
            tokens[0].copy_(start.expand_as(tokens[0]))


def random_linear(inputs: int, outputs: int, generator: torch.Generator | None) -> nn.Linear:
    """A linear layer as `nn.Linear` starts it, uniform in ±1/√inputs, from a generator."""
    layer = nn.Linear(inputs, outputs)
    for parameter in (layer.weight, layer.bias):
        nn.init.uniform_(parameter, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer
