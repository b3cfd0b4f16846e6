"""Which anchor words a step compares."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True)
class AnchorDraws:
    """Anchor words of each step, drawn without replacement as a pure function of where it is.

    Nothing is remembered from step to step, so that a resumed run draws what it would have drawn.

    Args:
        vocabulary: number of words to draw from.
        per_step: how many; None takes all of them.
        seed: of the run.

    Example:
        >>> draws = AnchorDraws(vocabulary=1000, per_step=3, seed=1)
        >>> torch.equal(draws.positions(epoch=2, step=7), draws.positions(epoch=2, step=7))
        True
        >>> AnchorDraws(vocabulary=4, per_step=None, seed=1).positions(epoch=1, step=1)
        tensor([0, 1, 2, 3])
    """

    vocabulary: int
    per_step: int | None
    seed: int

    @property
    def count(self) -> int:
        """A, words a step."""
        return self.vocabulary if self.per_step is None else min(self.per_step, self.vocabulary)

    def positions(self, epoch: int, step: int) -> Tensor:
        """Positions in the vocabulary, [A] long, ascending."""
        if self.count == self.vocabulary:
            return torch.arange(self.vocabulary)
        generator = np.random.default_rng((self.seed, epoch, step))
        return torch.from_numpy(np.sort(generator.choice(self.vocabulary, self.count, False)))
