"""What both models' answers to test images say: classes, confusions, calibration, mistakes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from promptot.data.images.read_image import UnreadableImage
from promptot.data.task import ImageTask
from promptot.evaluation.calibration import reliability
from promptot.evaluation.metrics import confusion
from promptot.evaluation.scoring import Scores
from promptot.reports import (
    Answer,
    Calibration,
    ClassResult,
    Confusion,
    ConfusionPicture,
    ExampleImage,
)
from promptot.runs.report.panels import likeliest
from promptot.runs.report.retention_panel import FROZEN

MOST_MISTAKES = 12
MOST_CONFUSIONS = 12


def answer_details(name: str, scores: Scores, task: ImageTask) -> dict[str, Any]:
    """Per class, confusions and calibration of one part."""
    names, c = task.class_names, len(task.class_names)
    after = confusion(scores.student, scores.labels, c)
    before = confusion(scores.teacher, scores.labels, c)
    totals = after.sum(axis=1).tolist()
    classes = [
        ClassResult(names[i], totals[i], int(before[i, i]), int(after[i, i]))
        for i in range(c)
        if totals[i]
    ]
    pairs = [(int(after[i, j]), i, j) for i in range(c) for j in range(c) if i != j and after[i, j]]
    pairs.sort(key=lambda found: (-found[0], found[1], found[2]))
    return {
        "classes": classes,
        "confusions": [
            Confusion(names[i], names[j], count, int(before[i, j]), totals[i])
            for count, i, j in pairs[:MOST_CONFUSIONS]
        ],
        "picture": ConfusionPicture(after.tolist(), names),
        "calibrations": [
            Calibration(label, reliability(logits.softmax(dim=1), scores.labels))
            for label, logits in ((FROZEN, scores.teacher), (name, scores.student))
        ],
    }


def worst_mistakes(name: str, scores: Scores, task: ImageTask) -> list[ExampleImage]:
    """Images that the adapted model gets wrong, the surest of its errors first."""
    probabilities = scores.student.softmax(dim=1)
    right = probabilities.gather(1, scores.labels[:, None]).squeeze(1)
    margin = probabilities.amax(dim=1) - right  # 0 where it is right
    frozen_right = scores.teacher.argmax(dim=1) == scores.labels
    found: list[ExampleImage] = []
    for row in margin.argsort(descending=True, stable=True).tolist():
        if margin[row] <= 0 or len(found) == MOST_MISTAKES:
            break
        example = task.test[int(scores.indices[row])]
        try:
            image = example.load()
        except UnreadableImage:  # it could be read a moment ago; the page can do without
            continue
        file = Path(example.path.rpartition("::")[2]).name
        found.append(
            ExampleImage(
                image=image,
                label=task.class_names[example.label],
                answers=[
                    Answer(FROZEN, likeliest(scores.teacher[row], task.class_names)),
                    Answer(name, likeliest(scores.student[row], task.class_names)),
                ],
                note=f"{file} · zero-shot had it right" if frozen_right[row] else file,
            )
        )
    return found
