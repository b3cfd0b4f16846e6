"""What both models said of every test image, as a table that people and `report` read."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from promptot.errors import PromptotError
from promptot.evaluation.scoring import Scores
from promptot.files import write_text
from promptot.reading import Unreadable, read_csv, read_text
from promptot.tasks.dataset import Example, ImageTask

COLUMNS = (
    "tested_on",
    "image",
    "class_name",
    "zero_shot",
    "zero_shot_probability",
    "adapted",
    "adapted_probability",
)


def write_predictions(
    path: Path, tested: Mapping[str, ImageTask], scores: Mapping[str, Scores]
) -> None:
    """Write a line for each image that was tested.

    Args:
        path: of the CSV.
        tested: what the images and class names of each part are.
        scores: what the models said, by part.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for part, found in scores.items():
        task = tested[part]
        answers = [
            (logits.argmax(dim=1).tolist(), logits.softmax(dim=1).amax(dim=1).tolist())
            for logits in (found.teacher, found.student)
        ]
        for row, index in enumerate(found.indices.tolist()):
            example = task.test[index]
            line = [part, example.path, task.class_names[example.label]]
            for places, probabilities in answers:
                line += [task.class_names[places[row]], f"{probabilities[row]:.4f}"]
            writer.writerow(line)
    # A file name that is no text (surrogates) is written as close to it as UTF-8 allows.
    write_text(path, text.getvalue().encode("utf-8", "backslashreplace").decode("utf-8"))


def read_tested(
    path: Path, names: Mapping[str, Sequence[str]], task: str, template: str
) -> dict[str, ImageTask]:
    """The images of a table that `write_predictions` wrote, as tasks to test on again.

    Args:
        path: of the CSV.
        names: class names of each part, in the order of their labels.
        task, template: of the tasks.

    Raises:
        PromptotError: the file is missing or damaged.
    """
    labels = {part: {name: label for label, name in enumerate(own)} for part, own in names.items()}
    examples: dict[str, list[Example]] = {part: [] for part in names}
    try:
        rows = read_csv(read_text(path))
        if tuple(next(rows, ())) != COLUMNS:
            raise Unreadable("it has other columns")
        for number, row in enumerate(rows, start=2):
            if len(row) != len(COLUMNS) or row[2] not in labels.get(row[0], ()):
                raise Unreadable(f"row {number} is not of this run")
            examples[row[0]].append(Example(row[1], labels[row[0]][row[2]]))
    except Unreadable as error:
        raise PromptotError(
            f"The test images of the run can't be read from '{path}': {error}.",
            fix="Give a folder of images to test on.",
        ) from error
    return {
        part: ImageTask(task, tuple(names[part]), test=tuple(found), template=template)
        for part, found in examples.items()
        if found
    }
