"""What an objective looks at: the features of a batch and of all classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.errors import PromptotError
from promptot.transport.numeric import at_least_float32


@dataclass(frozen=True, eq=False)
class Features:
    """L2-normalised features of one model, prompted (student) or frozen (teacher).

    Raises:
        PromptotError: the shapes don't fit together.

    Example:
        >>> import torch
        >>> Features(image=torch.ones(4, 512), text=torch.ones(10, 256))
        Traceback (most recent call last):
        promptot.errors.PromptotError: Image features [4, 512] and text features [10, 256] ...
    """

    image: Tensor  # [B, D]
    text: Tensor  # [C, D], one row a class

    def __post_init__(self) -> None:
        image, text = self.image.shape, self.text.shape
        if len(image) != 2 or len(text) != 2 or image[1] != text[1]:
            raise PromptotError(
                f"Image features {list(image)} and text features {list(text)} don't fit together.",
                fix="Give [batch, D] and [classes, D] with the same D.",
            )

    def at_least_float32(self) -> Features:
        """The same features, bf16 and fp16 raised to fp32."""
        return Features(at_least_float32(self.image), at_least_float32(self.text))

    def detach(self) -> Features:
        """The same features as constants."""
        return Features(self.image.detach(), self.text.detach())

    def joint_rows(self, labels: Tensor) -> Tensor:
        """One row an image, [image ; text of its class], [B, 2D]; `labels` [B].

        Example:
            >>> import torch
            >>> features = Features(torch.tensor([[0.0], [1.0]]), torch.tensor([[5.0], [6.0]]))
            >>> features.joint_rows(torch.tensor([1, 0]))
            tensor([[0., 6.],
                    [1., 5.]])
        """
        # Unlike indexing, an embedding's backward pass adds up equal labels in a fixed order.
        return torch.cat([self.image, F.embedding(labels, self.text)], dim=1)
