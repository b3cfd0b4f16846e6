"""Logits of the student and of the teacher over a list of images, in one pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.data.loader import Batch
from promptot.evaluation.metrics import accuracy, wilson_interval
from promptot.objectives.fit import Fit


class NothingToScore(ValueError):  # noqa: N818 - what it is, not how it ends
    """There was no image: the list is empty, or none of it could be read."""


@dataclass(frozen=True, eq=False)
class Scores:
    """What both models say of N images among C classes.

    Attributes:
        labels: [N].
        student, teacher: logits, [N, C], fp32, on the CPU.
        indices: position of each image in the list of examples, [N].
        student_images, teacher_images: both models' image features, [N, D], fp32, on the CPU; None
            unless they were asked for.
        fit: how logits become probabilities.
    """

    labels: Tensor
    student: Tensor
    teacher: Tensor
    indices: Tensor
    student_images: Tensor | None = None
    teacher_images: Tensor | None = None
    fit: Fit = "softmax"

    @property
    def student_accuracy(self) -> float:
        return accuracy(self.student, self.labels)

    @property
    def teacher_accuracy(self) -> float:
        return accuracy(self.teacher, self.labels)

    @property
    def student_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the student's accuracy."""
        return _interval(self.student, self.labels)

    @property
    def teacher_interval(self) -> tuple[float, float]:
        """95 % Wilson interval of the teacher's accuracy."""
        return _interval(self.teacher, self.labels)

    def as_json(self) -> dict[str, object]:
        """Sizes, and both models' accuracy with its interval."""

        def measure(value: float, interval: tuple[float, float]) -> dict[str, object]:
            return {"accuracy": round(value, 6), "interval": [round(end, 6) for end in interval]}

        return {
            "images": len(self.labels),
            "classes": self.student.shape[1],
            "zero_shot": measure(self.teacher_accuracy, self.teacher_interval),
            "adapted": measure(self.student_accuracy, self.student_interval),
        }


@torch.no_grad()
def score(
    model: Student,
    batches: Iterable[Batch],
    progress: Callable[[int], None] | None = None,
    *,
    keep_features: bool = False,
) -> Scores:
    """Classify images among the model's class names, prompted and frozen.

    Text features that all images share are computed once, the stem once per image, and so is the
    image tower where no prompt is in it.

    Args:
        model: on the device to use.
        batches: images [B, 3, R, R], or their patch tokens [B, N, W], with labels.
        progress: called with the number of images after each batch.
        keep_features: keep both models' image features too.

    Raises:
        NothingToScore: there is no batch.
    """
    device = model.backbone.device
    text = model.shared_text()
    labels, student, teacher, indices = [], [], [], []
    features: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        patches = model.patch_tokens(batch.images.to(device, non_blocking=True))
        known = batch.teacher
        frozen = model.encode_frozen(patches) if known is None else known.to(device)
        prompted = model.encode_images(patches, frozen)
        student.append(model.logits(prompted, text).float().cpu())
        teacher.append(model.teacher_logits(frozen).float().cpu())
        labels.append(batch.labels)
        indices.append(batch.indices)
        if keep_features:
            features.append((prompted.float().cpu(), frozen.float().cpu()))
        if progress is not None:
            progress(len(batch.labels))
    if not labels:
        raise NothingToScore("there are no images to score")
    prompted_images, frozen_images = None, None
    if keep_features:
        prompted_images, frozen_images = map(torch.cat, zip(*features, strict=True))
    return Scores(
        torch.cat(labels),
        torch.cat(student),
        torch.cat(teacher),
        torch.cat(indices),
        prompted_images,
        frozen_images,
        model.fit,
    )


def _interval(logits: Tensor, labels: Tensor) -> tuple[float, float]:
    return wilson_interval(int((logits.argmax(dim=1) == labels).sum()), len(labels))
