"""Read-outs: from features to logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from promptot.adaptation.adaptation import Arguments
from promptot.objectives.features import Features


class Readout(nn.Module):
    """Logits of image features, here by a matrix and a bias.

    Another read-out (a cache) is a subclass. One that learns has a `name`,
    and is rebuilt from its `arguments` and its state dict, as an `Adaptation` is.

    Attributes:
        name: as adapter cards call it; empty where there is nothing to store.
        classes: the number of classes that have parameters of their own; None if it serves any.
        reads_text: whether the logits depend on the text features.
    """

    name: ClassVar[str] = ""
    reads_text: ClassVar[bool] = False

    @property
    def arguments(self) -> Arguments:
        return {}

    @property
    def classes(self) -> int | None:
        return None

    def as_matrix(
        self,
        text: Tensor | None,
        scale: Tensor | None,
        rows: Sequence[int] | None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor] | None:
        """A matrix [C, D] and a bias [C] that make the logits; None where no matrix does."""
        raise NotImplementedError

    def forward(
        self,
        image: Tensor,
        text: Tensor | None = None,
        scale: Tensor | None = None,
        rows: Sequence[int] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        """Logits [N, C].

        Args:
            image: L2-normalised features [N, D].
            text: [C, D], or [N, C, D] where each image has its own; None if none is read.
            scale: s, 0-d, the backbone's.
            rows: which of the `classes` of the read-out, in this order; None for all.
            bias: b, 0-d, the backbone's; None of one that has none.
        """
        found = self.as_matrix(text, scale, rows, bias)
        assert found is not None, "a read-out without a matrix has a forward of its own"
        return image @ found[0].T + found[1]


class ScaledCosine(Readout):
    """CLIP's own: s · v tᵀ + b of L2-normalised image features v and text features t.

    b is 0 where the backbone has no logit bias.
    """

    reads_text: ClassVar[bool] = True

    def as_matrix(
        self,
        text: Tensor | None,
        scale: Tensor | None,
        rows: Sequence[int] | None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor] | None:
        assert text is not None
        assert scale is not None
        zeros = torch.zeros(len(text), device=text.device)
        return scale * text, zeros if bias is None else zeros + bias

    def forward(
        self,
        image: Tensor,
        text: Tensor | None = None,
        scale: Tensor | None = None,
        rows: Sequence[int] | None = None,
        bias: Tensor | None = None,
    ) -> Tensor:
        assert text is not None
        assert scale is not None
        return Features(image, text).logits(scale, bias)
