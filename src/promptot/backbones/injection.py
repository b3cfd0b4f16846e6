"""What an adaptation puts into the frozen encoders in one step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from promptot.backbones.low_rank import Deltas


@dataclass(frozen=True, eq=False)
class Injection:
    """Learned inputs of both encoders; without any of them they are frozen.

    Another kind of change is one more field here.

    Attributes:
        text_tokens: context tokens, one tensor a block from the first block on, each [n, W_text],
            or [C, n, W_text] when class-specific; empty for an unprompted text encoder.
        image_tokens: tokens appended to the patches, a tensor a block, each [m, W_image].
        text_shift: from L2-normalised image features [B, D] to what each image adds to every token
            of `text_tokens[0]`, [B, W_text]; None where the context is the same for every image.
        text_deltas, image_deltas: what is added to the matrices of each block; empty for none.
        images: B, once `for_images` has made a context of its own for each image: then
            `text_tokens[0]` is [B, n, W_text]. None before.
    """

    text_tokens: tuple[Tensor, ...] = ()
    image_tokens: tuple[Tensor, ...] = ()
    text_shift: Callable[[Tensor], Tensor] | None = None
    images: int | None = None
    text_deltas: tuple[Deltas, ...] = ()
    image_deltas: tuple[Deltas, ...] = ()

    @property
    def changes_text(self) -> bool:
        return bool(self.text_tokens) or any(self.text_deltas)

    @property
    def changes_images(self) -> bool:
        return bool(self.image_tokens) or any(self.image_deltas)

    def select_classes(self, rows: Tensor | slice) -> Injection:
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
