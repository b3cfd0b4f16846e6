"""What an objective looks at: the features of a batch, of all classes and of anchor words."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.errors import PromptotError
from promptot.transport.numeric import at_least_float32


@dataclass(frozen=True, eq=False)
class Features:
    """L2-normalised features of one model, prompted (student) or frozen (teacher).

    Where the prompts depend on the image (CoCoOp), the student's text has one matrix an image.

    Raises:
        PromptotError: the shapes don't fit together.

    Example:
        >>> import torch
        >>> Features(image=torch.ones(4, 512), text=torch.ones(10, 256))
        Traceback (most recent call last):
        promptot.errors.PromptotError: Image features [4, 512] and text features [10, 256] ...
    """

    image: Tensor  # [B, D]
    text: Tensor  # [C, D], one row a class, or [B, C, D]
    vocabulary: Tensor | None = None  # [A, D], one row an anchor word of this step, or [B, A, D]

    def __post_init__(self) -> None:
        image = self.image.shape
        for name, words in (("text", self.text), ("vocabulary", self.vocabulary)):
            if words is None:
                continue
            shape, leading = words.shape, words.shape[:-2]
            fits = len(image) == 2 and len(shape) >= 2 and image[-1] == shape[-1]
            if not fits or leading not in (image[:0], image[:1]):
                raise PromptotError(
                    f"Image features {list(image)} and {name} features {list(shape)} don't fit "
                    "together.",
                    fix="Give [batch, D] and [words, D] or [batch, words, D] with the same D.",
                )

    def at_least_float32(self) -> Features:
        """The same features, bf16 and fp16 raised to fp32."""
        return self._map(at_least_float32)

    def detach(self) -> Features:
        """The same features as constants."""
        return self._map(Tensor.detach)

    def logits(self, scale: Tensor | float, bias: Tensor | float | None = None) -> Tensor:
        """s · cosine + b of each image with each class, [B, C].

        Args:
            scale: s, 0-d.
            bias: b, 0-d; None adds nothing.
        """
        if self.text.dim() == 2:
            logits = scale * (self.image @ self.text.T)
        else:
            logits = scale * (self.text @ self.image[:, :, None]).squeeze(dim=2)
        return logits if bias is None else logits + bias

    def text_of(self, labels: Tensor) -> Tensor:
        """The text row of each image's class, [B, D]; `labels` [B]."""
        classes = self.text.shape[-2]
        if self.text.dim() == 3:
            labels = labels + classes * torch.arange(len(labels), device=labels.device)
        # Unlike indexing, an embedding's backward pass adds up equal labels in a fixed order.
        return F.embedding(labels, self.text.flatten(0, -2))

    def joint_rows(self, labels: Tensor) -> Tensor:
        """One row an image, [image ; text of its class], [B, 2D]; `labels` [B].

        Example:
            >>> import torch
            >>> features = Features(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [6.0]]))
            >>> features.joint_rows(torch.tensor([1, 0]))
            tensor([[0., 6.],
                    [1., 5.]])
        """
        return torch.cat([self.image, self.text_of(labels)], dim=1)

    def words(self) -> Tensor:
        """Text rows of all classes, then of the anchor words: [C + A, D] or [B, C + A, D]."""
        if self.vocabulary is None:
            return self.text
        parts = [self.text, self.vocabulary]
        if self.text.dim() != self.vocabulary.dim():
            parts = [part.expand(len(self.image), -1, -1) for part in parts]
        return torch.cat(parts, dim=-2)

    def _map(self, change: Callable[[Tensor], Tensor]) -> Features:
        vocabulary = None if self.vocabulary is None else change(self.vocabulary)
        return Features(change(self.image), change(self.text), vocabulary)
