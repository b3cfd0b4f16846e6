"""How far the student's predictions are from the frozen model's."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult


@dataclass(frozen=True)
class LogitDivergence:
    """mean_i KL(p_i ‖ p̃_i), p and p̃ the softmax of the frozen model's and the student's logits.

    What ProGrad (Zhu et al., 2023, "Prompt-aligned gradient for prompt tuning") takes for the
    general direction; its gradient is that of the cross-entropy with p as soft labels. A logit
    bias would leave p as it is.

    Example:
        >>> import torch
        >>> eye = torch.eye(2)
        >>> frozen = Features(eye, eye)
        >>> LogitDivergence()(frozen, frozen, torch.arange(2), 100.0).value
        tensor(0.)
    """

    def __call__(
        self, student: Features, teacher: Features, labels: Tensor, logit_scale: Tensor | float
    ) -> PreservationResult:
        """See `Preservation`; `labels` have no effect."""
        ours, theirs = (
            each.at_least_float32().logits(logit_scale).log_softmax(dim=1)
            for each in (student, teacher)
        )
        return PreservationResult(F.kl_div(ours, theirs, reduction="batchmean", log_target=True))
