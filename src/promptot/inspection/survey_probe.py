"""What the frozen image features can tell apart, beside what the names find: a linear probe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from promptot.adaptation.linear_head import fit_linear_probe
from promptot.backbones import Backbone
from promptot.data import Example, ImageTask
from promptot.evaluation.metrics import wilson_interval
from promptot.evaluation.scoring import Scores
from promptot.training.batches import frozen_features


@dataclass(frozen=True)
class ProbeSettings:
    """How a probe is fitted.

    Attributes:
        most_of_a_class: training images of one class.
        most_images: of all classes together, if that leaves one of each: a probe takes seconds.
        strength: C, the inverse strength of the penalty; a run of `linear-probe` searches for one
            instead. CLIP's own example of a linear probe has 0.316 for features of a length near
            10; for features of length 1 that is 100 times as much.
    """

    most_of_a_class: int = 32
    most_images: int = 2000
    strength: float = 31.6


@dataclass(frozen=True)
class ProbeSummary:
    """How a linear probe does on the test images.

    Attributes:
        accuracy, interval: on the images that the frozen model was tested on, and the 95 % Wilson
            interval. A class without a training image is never answered, and so counts as wrong.
        images: that it was fitted to.
        most_of_a_class: training images of a class that were used at most.
        capped: whether some class has more.
    """

    accuracy: float
    interval: tuple[float, float]
    images: int
    most_of_a_class: int
    capped: bool


def draw_for_probe(
    task: ImageTask, settings: ProbeSettings = ProbeSettings()
) -> tuple[tuple[Example, ...], int]:
    """Some training images of each class, the same every time; and how many of a class at most."""
    classes = len({example.label for example in task.train})
    most = max(1, min(settings.most_of_a_class, settings.most_images // classes))
    return replace(task, validation=()).few_shot(most, seed=1).train, most


def probe(
    task: ImageTask,
    backbone: Backbone,
    scores: Scores,
    workers: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
    settings: ProbeSettings = ProbeSettings(),
) -> ProbeSummary | None:
    """Fit a linear probe to some of the training images and test it where `scores` were taken.

    Args:
        task: its training images, all of them readable.
        scores: of the frozen model on the task's test images, with their features.
        progress: called with the training images that are done, and how many there are.
        settings: how many images are drawn, and the penalty.

    Returns:
        None if fewer than two classes have training images.
    """
    features = scores.teacher_images
    present = sorted({example.label for example in task.train})
    if features is None or len(present) < 2:
        return None
    drawn, most = draw_for_probe(task, settings)
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress(done, len(drawn))

    x, y = frozen_features(backbone, drawn, workers, count)
    labels = torch.tensor(present)  # the probe's classes are those that it has images of
    if set(y.tolist()) != set(present):  # an image has gone since it was looked at
        return None
    head = fit_linear_probe(
        x, torch.searchsorted(labels, y), classes=len(present), strengths=(settings.strength,)
    )
    with torch.no_grad():
        answers = labels[head(features).argmax(dim=1)]
    right, total = int((answers == scores.labels).sum()), len(scores.labels)
    return ProbeSummary(
        right / total,
        wilson_interval(right, total),
        images=len(y),
        most_of_a_class=most,
        capped=len(drawn) < len(task.train),
    )
