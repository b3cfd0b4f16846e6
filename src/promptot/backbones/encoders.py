"""The seams of a backbone: an image encoder, a text encoder, and what is injected into them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class Injection:
    """What an adaptation puts into both encoders in one step; without any of it they are frozen.

    Another kind of change, such as low-rank weight deltas a block, is one more field here.

    Attributes:
        text_tokens: context tokens, one tensor a block from the first block on, each [n, W_text],
            or [C, n, W_text] when class-specific; empty for an unprompted text encoder.
        image_tokens: tokens appended to the patches, a tensor a block, each [m, W_image].
        text_shift: from L2-normalised image features [B, D] to what each image adds to every token
            of `text_tokens[0]`, [B, W_text]; None where the context is the same for every image.
        images: B, once `for_images` has made a context of its own for each image: then
            `text_tokens[0]` is [B, n, W_text]. None before.
    """

    text_tokens: tuple[Tensor, ...] = ()
    image_tokens: tuple[Tensor, ...] = ()
    text_shift: Callable[[Tensor], Tensor] | None = None
    images: int | None = None

    def select_classes(self, rows: Sequence[int] | slice) -> Injection:
        """The class-specific tokens of some of the classes, in this order; others as they are."""
        chosen = (own[rows] if own.dim() == 3 else own for own in self.text_tokens)
        return replace(self, text_tokens=tuple(chosen))

    def for_images(self, image_features: Tensor) -> Injection:
        """The shift applied for each of B images, of their L2-normalised features [B, D]."""
        if self.text_shift is None:
            return self
        first = self.text_tokens[0] + self.text_shift(image_features)[:, None]  # [B, n, W]
        tokens = (first, *self.text_tokens[1:])
        return replace(self, text_tokens=tokens, text_shift=None, images=len(image_features))


FROZEN = Injection()
"""No injection: the encoders as they were loaded."""


class Packed(Protocol):
    """Token sequences of C class names, as a text encoder wants them."""

    @property
    def tokens(self) -> int:
        """How many tokens are computed for all classes together."""
        ...


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
        token_embedding: token ids → [.., W].
    """

    width: int
    context_length: int
    token_embedding: nn.Embedding

    @property
    @abstractmethod
    def layers(self) -> int: ...

    @abstractmethod
    def pack(self, sequences: Sequence[Sequence[int]], *, prompted: bool = False) -> Packed:
        """Token ids of C names, each from [SOS] to [EOS], on the encoder's device.

        Args:
            prompted: whether `encode` will insert learned tokens behind [SOS].
        """

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
