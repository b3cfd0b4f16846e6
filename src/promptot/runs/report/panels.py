"""What several pages show: training curves, the likeliest names of an image, a plan."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from promptot.adaptation.student import Student
from promptot.evaluation.scoring import Scores
from promptot.objectives import Fit, build_preservation, probabilities
from promptot.objectives.features import Features
from promptot.recipes.schema import ObjectiveConfig
from promptot.reports import History, PlanPicture
from promptot.training.training_log import Log

PLAN_IMAGES = 12
HISTORY = ("cross_entropy", "total", "image_drift", "text_drift")


def history(name: str, log: Log, recipe: Mapping[str, Any]) -> History:
    """The curves of a training run that say something about its recipe (flat, as described)."""
    keys = list(HISTORY)
    if recipe.get("objective.preservation", "none") != "none":
        keys += ["preservation", "off_diagonal_mass", "plan_entropy"]
    if recipe.get("vocabulary.comparison", "none") != "none":
        keys += ["vocabulary", "vocabulary_off_diagonal_mass", "vocabulary_plan_entropy"]
    if recipe.get("objective.control", "constant") != "constant":
        keys.append("strength")
    series = {key: [getattr(record, key) for record in log.steps] for key in keys}
    return History(name, range(1, len(log.steps) + 1), series)


def likeliest(
    logits: torch.Tensor, names: Sequence[str], k: int = 3, fit: Fit = "softmax"
) -> list[tuple[str, float]]:
    """The k likeliest names of one image, from its logits [C]."""
    values, places = probabilities(logits, fit).topk(min(k, len(names)))
    return [(names[i], v) for v, i in zip(values.tolist(), places.tolist(), strict=True)]


@torch.no_grad()
def draw_plan(
    model: Student, config: ObjectiveConfig, scores: Scores, what: str
) -> list[PlanPicture]:
    """The plan that an objective finds after training, on a few test images.

    Args:
        model: over the class names of the scores.
        config: names the transport.
        scores: with features.
        what: the images are, for the title.

    Returns:
        the plan; nothing where the objective solves for none, or for several at once.
    """
    if config.preservation != "ot":
        return []
    if scores.student_images is None or scores.teacher_images is None:
        return []
    images = len(scores.labels)
    chosen = torch.linspace(0, images - 1, min(PLAN_IMAGES, images)).long()
    device = model.backbone.device
    student, teacher = (
        side[chosen].to(device) for side in (scores.student_images, scores.teacher_images)
    )
    labels = scores.labels[chosen]
    term = build_preservation(config.preservation, **config.options())
    assert term is not None
    plan = term(
        Features(student, model.encode_classes(student)).at_least_float32(),
        Features(teacher, model.teacher_text).at_least_float32(),
        labels.to(device),
        model.backbone.logit_scale,
    ).plan
    if plan is None or len(plan) != len(chosen) or not float(plan.sum()) > 0:
        return []
    names = [model.class_names[label] for label in labels.tolist()]
    return [PlanPicture(plan.cpu(), names, title=f"After training, {len(chosen)} {what}")]
