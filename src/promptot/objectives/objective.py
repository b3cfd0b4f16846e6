"""The whole loss: classify the batch, and stay close to the frozen model."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.errors import PromptotError
from promptot.objectives.features import Features
from promptot.objectives.preservation import Preservation


@dataclass(frozen=True, eq=False)
class ObjectiveResult:
    """The loss, its parts, and what to log. All are 0-d but for `logits` and `plan`."""

    total: Tensor  # cross_entropy + strength · preservation, differentiable
    cross_entropy: Tensor
    preservation: Tensor  # 0 without a preservation term
    logits: Tensor  # [B, C], detached
    image_drift: Tensor  # mean over the batch of ‖student − teacher‖, detached
    text_drift: Tensor  # mean over all classes of ‖student − teacher‖, detached
    off_diagonal_mass: Tensor | None  # None where no plan was solved for
    plan_entropy: Tensor | None
    plan: Tensor | None  # [B, B]


class Objective:
    """L = CE(s · ṽ t̃ᵀ, y) + λ · preservation(student, teacher), in fp32 or better.

    16-bit features are raised to fp32 here, whatever precision the towers ran in, and autocast
    is off inside. No gradient flows into the teacher.

    Args:
        preservation: distance of the student from the teacher; None for cross-entropy alone.
        strength: λ, zero or more. At zero the preservation term is still computed and reported.

    Raises:
        PromptotError: `strength` is negative or not finite.

    Example:
        >>> import torch
        >>> from promptot.objectives import JointTransport
        >>> eye = torch.eye(2)
        >>> features = Features(image=eye, text=eye)
        >>> objective = Objective(JointTransport(), strength=10.0)
        >>> result = objective(features, features, torch.tensor([0, 1]), logit_scale=100.0)
        >>> result.total, result.off_diagonal_mass
        (tensor(0.), tensor(0.))
    """

    def __init__(self, preservation: Preservation | None, strength: float) -> None:
        if not (math.isfinite(strength) and strength >= 0):
            raise PromptotError(
                f"The strength of the preservation term is {strength}.",
                fix="Give a number from zero upwards.",
            )
        self.preservation = preservation
        self.strength = strength

    def __call__(
        self, student: Features, teacher: Features, labels: Tensor, logit_scale: Tensor | float
    ) -> ObjectiveResult:
        """The loss of one batch.

        Args:
            student: features of the prompted model: the batch [B, D] and all classes [C, D].
            teacher: features of the frozen model on the same images and classes.
            labels: [B] long, class of each image.
            logit_scale: s, the factor on the cosine (CLIP's `logit_scale.exp()`, about 100).

        Raises:
            PromptotError: the shapes don't fit, or a feature is NaN or infinite.
        """
        _check_shapes(student, teacher, labels)
        student, teacher = student.at_least_float32(), teacher.at_least_float32().detach()
        with torch.autocast(device_type=student.image.device.type, enabled=False):
            logits = logit_scale * (student.image @ student.text.T)  # [B, C]
            cross_entropy = F.cross_entropy(logits, labels)
            if self.preservation is None:
                kept = None
                preservation, total = torch.zeros_like(cross_entropy), cross_entropy
            else:
                kept = self.preservation(student, teacher, labels)
                preservation = kept.value
                total = cross_entropy + self.strength * preservation
        return ObjectiveResult(
            total=total,
            cross_entropy=cross_entropy,
            preservation=preservation,
            logits=logits.detach(),
            image_drift=_drift(student.image, teacher.image),
            text_drift=_drift(student.text, teacher.text),
            off_diagonal_mass=kept.off_diagonal_mass if kept else None,
            plan_entropy=kept.plan_entropy if kept else None,
            plan=kept.plan if kept else None,
        )


def _drift(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.detach() - teacher).norm(dim=1).mean()


def _check_shapes(student: Features, teacher: Features, labels: Tensor) -> None:
    if student.image.shape != teacher.image.shape or student.text.shape != teacher.text.shape:
        raise PromptotError(
            f"Student features {list(student.image.shape)}, {list(student.text.shape)} and teacher "
            f"features {list(teacher.image.shape)}, {list(teacher.text.shape)} differ in shape.",
            fix="Compute both on the same images and the same classes.",
        )
    if labels.shape != student.image.shape[:1] or labels.dtype != torch.long:
        raise PromptotError(
            f"Labels of shape {list(labels.shape)} and type {labels.dtype} for "
            f"{len(student.image)} images.",
            fix="Give one torch.long label an image.",
        )
