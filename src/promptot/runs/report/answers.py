"""What both models' answers to test images say: classes, confusions, calibration, mistakes."""

from __future__ import annotations

from pathlib import Path

from promptot.data.images.read_image import UnreadableImage
from promptot.data.task import ImageTask
from promptot.evaluation.calibration import reliability
from promptot.evaluation.metrics import confusion
from promptot.evaluation.scoring import Scores
from promptot.objectives.fit import NONE_BELOW, probabilities
from promptot.reports.page_values import (
    Answer,
    Calibration,
    ConfusionPicture,
    Details,
    ExampleImage,
)
from promptot.reports.tables import Column, Table
from promptot.runs.report.panels import likeliest
from promptot.runs.report.retention_panel import FROZEN

MOST_MISTAKES = 12
MOST_CONFUSIONS = 12
_CLASSES = (
    Column("images", "Images", "count", None, wide=True),
    Column("before", "Zero-shot", better=None),
    Column("after", "Adapted", better=None),
    Column("change", "Change", "points"),
)
_CONFUSIONS = (
    Column("taken_for", "Taken for", "text"),
    Column("after", "Adapted", "count", None),
    Column("before", "Zero-shot", "count", None),
)


def answer_details(name: str, scores: Scores, task: ImageTask, tested: str) -> Details:
    """Per class, confusions and calibration of one part.

    Args:
        name: of the adapted model.
        scores: of the part.
        task: its images and class names.
        tested: a sentence on what was tested.
    """
    names, c = task.class_names, len(task.class_names)
    after = confusion(scores.student, scores.labels, c).tolist()  # [C right][C predicted]
    before = confusion(scores.teacher, scores.labels, c).tolist()
    totals = [sum(row) for row in after]
    change = {i: (after[i][i] - before[i][i]) / totals[i] for i in range(c) if totals[i]}
    classes = [
        (names[i], totals[i], before[i][i] / totals[i], after[i][i] / totals[i], change[i])
        for i in sorted(change, key=change.__getitem__)
    ]
    wrong = [(i, j) for i in range(c) for j in range(c) if i != j and after[i][j]]
    wrong.sort(key=lambda pair: (-after[pair[0]][pair[1]], pair))
    confusions = [
        (names[i], names[j], f"{after[i][j]} of {totals[i]}", before[i][j])
        for i, j in wrong[:MOST_CONFUSIONS]
    ]
    return Details(
        tested=tested,
        classes=Table.of(_CLASSES, classes, corner="Class") if classes else None,
        confusions=Table.of(_CONFUSIONS, confusions, corner="Class") if confusions else None,
        picture=ConfusionPicture(after, names),
        calibrations=[
            Calibration(
                label,
                reliability(probabilities(logits, scores.fit), scores.labels, fit=scores.fit),
            )
            for label, logits in ((FROZEN, scores.teacher), (name, scores.student))
        ],
    )


def worst_mistakes(name: str, scores: Scores, task: ImageTask) -> list[ExampleImage]:
    """Images that the adapted model gets wrong, the surest of its errors first."""
    sure = probabilities(scores.student, scores.fit)
    right = sure.gather(1, scores.labels[:, None]).squeeze(1)
    margin = sure.amax(dim=1) - right  # 0 where it is right
    frozen_right = scores.teacher.argmax(dim=1) == scores.labels
    mistakes: list[ExampleImage] = []
    for row in margin.argsort(descending=True, stable=True).tolist():
        if margin[row] <= 0 or len(mistakes) == MOST_MISTAKES:
            break
        example = task.test[int(scores.indices[row])]
        try:
            image = example.load()
        except UnreadableImage:  # it could be read a moment ago; the page can do without
            continue
        file = Path(example.path.rpartition("::")[2]).name
        notes = [file]
        if frozen_right[row]:
            notes.append("zero-shot had it right")
        if scores.fit == "sigmoid" and sure[row].amax() < NONE_BELOW:
            notes.append("none of these")
        mistakes.append(
            ExampleImage(
                image=image,
                label=task.class_names[example.label],
                answers=[
                    Answer(label, likeliest(logits[row], task.class_names, fit=scores.fit))
                    for label, logits in ((FROZEN, scores.teacher), (name, scores.student))
                ],
                note=" · ".join(notes),
            )
        )
    return mistakes
