"""The seams of a backbone: what an image encoder and a text encoder are."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from promptot.backbones.injection import FROZEN, Injection


class Packed(Protocol):
    """Token sequences of C class names, as a text encoder wants them."""

    @property
    def tokens(self) -> int:
        """How many tokens are computed for all classes together."""
        ...


@dataclass(frozen=True, eq=False)
class TokenTable:
    """Token sequences of V words on a device, of which some are chosen by tensors.

    Attributes:
        ids: [V, L], each filled up with its last token.
        lengths: tokens of each, [V].
    """

    ids: Tensor
    lengths: Tensor

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]], device: torch.device) -> TokenTable:
        longest = max(len(tokens) for tokens in sequences)
        rows = [[*own, *[own[-1]] * (longest - len(own))] for own in sequences]
        lengths = [len(tokens) for tokens in sequences]
        return cls(torch.tensor(rows, device=device), torch.tensor(lengths, device=device))

    def choose(self, rows: Tensor) -> TokenTable:
        """Those in these rows, [A] long."""
        return TokenTable(self.ids[rows], self.lengths[rows])


class ImageEncoder(nn.Module, ABC):
    """Images to features, in two steps, of which an adaptation only changes the second.

    Attributes:
        stem: images [B, 3, R, R] → tokens [B, N, W].
        patches, width, layers: N, W, and the number of blocks.
        embed_dim: size D of the features.
        promptable: whether `encode` takes image tokens; if not, it is a fixed feature extractor.
    """

    promptable: ClassVar[bool] = False
    stem: nn.Module
    patches: int
    width: int

    @property
    @abstractmethod
    def layers(self) -> int: ...

    @property
    @abstractmethod
    def embed_dim(self) -> int: ...

    @property
    def mlp_width(self) -> int:
        """Width within the MLPs of the blocks; 0 without blocks."""
        return 0

    @abstractmethod
    def encode(self, tokens: Tensor, injection: Injection = FROZEN) -> Tensor:
        """Features [B, D], not normalised, of the stem's tokens [B, N, W]."""

    @abstractmethod
    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices in `dtype`; products are computed in it."""

    def activation_bytes(self, batch: int, injection: Injection) -> int:
        """Bytes that `encode` keeps for the backward pass to an injection."""
        return 0

    def forward(self, images: Tensor, injection: Injection = FROZEN) -> Tensor:
        """Features [B, D], not normalised, of images [B, 3, R, R]."""
        return self.encode(self.stem(images), injection)


class TextEncoder(nn.Module, ABC):
    """Class names to features; how they are laid out (packed, padded) is the encoder's business.

    Attributes:
        width, layers: W, and the number of blocks.
        context_length: largest number of positions.
        starts: tokens that begin every text, 0 or 1; learned context goes behind them.
        recompute: whether what the backward pass needs is computed again rather than kept; None of
            an encoder that can't.
        token_embedding: token ids → [.., W].
    """

    starts: int = 1
    recompute: bool | None = None
    width: int
    context_length: int
    token_embedding: nn.Embedding

    @property
    @abstractmethod
    def layers(self) -> int: ...

    @property
    def mlp_width(self) -> int:
        """Width within the MLPs of the blocks; 0 without blocks."""
        return 0

    @abstractmethod
    def pack(self, sequences: Sequence[Sequence[int]], *, prompted: bool = False) -> Packed:
        """Token ids of C names, each as the tokenizer gives it, on the encoder's device.

        Args:
            prompted: whether `encode` will insert learned tokens behind the first `starts`.
        """

    @abstractmethod
    def add_words(self, packed: Packed, words: TokenTable) -> Packed:
        """The names that were packed (`prompted`), and words behind them, without the host."""

    @abstractmethod
    def encode(self, packed: Packed, injection: Injection = FROZEN) -> Tensor:
        """Features [C, D], not normalised; [B, C, D] of an injection for B images."""

    @abstractmethod
    def store_matrices(self, dtype: torch.dtype) -> None:
        """Store the matrices in `dtype`; products are computed in it."""

    def activation_bytes(self, packed: Packed, injection: Injection, images: int) -> int:
        """Bytes that `encode` keeps for the backward pass, for B images with texts of their own."""
        return 0

    def forward(self, packed: Packed, injection: Injection = FROZEN) -> Tensor:
        return self.encode(packed, injection)
