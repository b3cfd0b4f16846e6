"""PromptSRC's self-consistency losses: text, image and logits stay near the frozen model's."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from promptot.errors import PromptotError
from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult


@dataclass(frozen=True)
class PromptSRC:
    """Mean L1 of text and image features, and the divergence of the predictions.

    w_t · mean|t̃ − t| + w_v · mean|ṽ − v| + w_l · Σ_i KL(p_i ‖ p̃_i) / (B · C), with p the softmax of
    the logits; the means are over all entries, the divergence is summed over the batch and
    divided by the number of logits (Khattak et al., 2023, "Self-regulating prompts", and its
    reference code; λ = 1). Published with the mean feature of many templates as the teacher's text.
    p is a softmax also beside a sigmoid loss, and a logit bias would leave it as it is.

    Args:
        text_weight: w_t, zero or more.
        image_weight: w_v, zero or more.
        logit_weight: w_l, zero or more.

    Raises:
        PromptotError: a weight is negative or not finite.

    Example:
        >>> import torch
        >>> eye = torch.eye(2)
        >>> moved = Features(eye + 0.1, eye)
        >>> term = PromptSRC(logit_weight=0.0)
        >>> round(term(moved, Features(eye, eye), torch.arange(2), 100.0).value.item(), 4)
        1.0
    """

    text_weight: float = 25.0
    image_weight: float = 10.0
    logit_weight: float = 1.0

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not (math.isfinite(weight) and weight >= 0):
                raise PromptotError(
                    f"'{name}' is {weight}.", fix="Give a number from zero upwards."
                )

    def __call__(
        self, student: Features, teacher: Features, labels: Tensor, logit_scale: Tensor | float
    ) -> PreservationResult:
        """See `Preservation`; `labels` have no effect."""
        student, teacher = student.at_least_float32(), teacher.at_least_float32()
        text = (student.text - teacher.text).abs().mean()
        image = (student.image - teacher.image).abs().mean()
        ours, theirs = (each.logits(logit_scale) for each in (student, teacher))  # [B, C]
        divergence = F.kl_div(
            ours.log_softmax(dim=1), theirs.log_softmax(dim=1), reduction="sum", log_target=True
        )
        return PreservationResult(
            self.text_weight * text
            + self.image_weight * image
            + self.logit_weight * divergence / ours.numel()
        )
