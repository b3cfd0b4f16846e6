"""Anchor words that are read beside the class names, other ones in each step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.backbones.encoders import Packed, TokenTable
from promptot.graphs import is_host


class AnchorTexts:
    """The texts of V anchor words as the student reads them.

    Args:
        backbone: which packs them.
        sequences: token ids of each word.
    """

    def __init__(self, backbone: Backbone, sequences: Sequence[Sequence[int]]) -> None:
        self.backbone, self.sequences = backbone, sequences
        self._table: TokenTable | None = None

    def behind(self, names: Sequence[Sequence[int]], packed: Packed, chosen: Tensor) -> Packed:
        """Class names and the words at these positions [A], packed in one.

        On a CPU with the least padding; on a GPU without a look at the positions, so that other
        words are the same kernels.

        Args:
            names: token ids of each class name.
            packed: the class names alone.
        """
        if is_host(chosen):
            words = [self.sequences[position] for position in chosen.tolist()]
            return self.backbone.pack_names([*names, *words])
        if self._table is None:
            self._table = TokenTable.build(self.sequences, chosen.device)
        return self.backbone.text_tower.add_words(packed, self._table.choose(chosen))
