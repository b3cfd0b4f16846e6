"""KgCoOp's term: the cosine between the text features of both models."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult


@dataclass(frozen=True)
class TextCosine:
    """1 − mean_c cos(t̃(c), t(c)) over all classes (Yao et al., 2023, "Visual-language prompt
    tuning with knowledge-guided context optimization"; published with λ = 8).

    For unit vectors this is ½ ‖t̃(c) − t(c)‖²: point-wise on all classes. Image features don't
    enter. Text that depends on the image is averaged over the images as well.

    Example:
        >>> import torch
        >>> eye = torch.eye(2)
        >>> turned = Features(eye, text=eye.flip(0))
        >>> TextCosine()(turned, Features(eye, eye), torch.arange(2), 100.0).value
        tensor(1.)
    """

    def __call__(
        self, student: Features, teacher: Features, labels: Tensor, logit_scale: Tensor | float
    ) -> PreservationResult:
        """See `Preservation`; `labels` and `logit_scale` have no effect."""
        student, teacher = student.at_least_float32(), teacher.at_least_float32()
        cosine = F.cosine_similarity(student.text, teacher.text, dim=-1)  # [C] or [B, C]
        return PreservationResult(1 - cosine.mean())
