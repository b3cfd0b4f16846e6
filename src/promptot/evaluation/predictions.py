"""What both models said of every test image, as a table that people and `report` read."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError
from promptot.evaluation.scoring import Scores
from promptot.files.csv_text import Number, csv_line, read_cell
from promptot.files.reading import Unreadable, read_csv, read_text
from promptot.files.writing import write_text
from promptot.objectives.fit import probabilities

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
    """Write a line for each image that was tested; names and paths as `csv_text` says.

    Of a run with a sigmoid, a probability below 0.5 says that it is rather none of the classes.

    Args:
        path: of the CSV.
        tested: what the images and class names of each part are.
        scores: what the models said, by part.
    """
    lines = [csv_line(COLUMNS)]
    for part, answered in scores.items():
        task = tested[part]
        answers = [
            (
                logits.argmax(dim=1).tolist(),
                probabilities(logits, answered.fit).amax(dim=1).tolist(),
            )
            for logits in (answered.teacher, answered.student)
        ]
        for row, index in enumerate(answered.indices.tolist()):
            example = task.test[index]
            line = [part, example.path, task.class_names[example.label]]
            for places, sure in answers:
                line += [task.class_names[places[row]], Number(f"{sure[row]:.4f}")]
            lines.append(csv_line(line))
    write_text(path, "".join(lines))


def read_tested(
    path: Path, names: Mapping[str, Sequence[str]], task: str, template: str
) -> dict[str, ImageTask]:
    """The images of a table that `write_predictions` wrote, as tasks to test on again.

    Args:
        path: of the CSV.
        names: class names of each part, in the order of their labels.
        task, template: of the tasks.

    Raises:
        PromptotError: the file is missing or damaged, or two classes have one name.
    """
    doubled = [name for own in names.values() for name, n in Counter(own).items() if n > 1]
    if doubled:
        raise PromptotError(
            f"Two classes of this run are called '{doubled[0]:.60}', and '{path}' can't tell their "
            "images apart.",
            fix="Give the images to test on, with their classes.",
        )
    labels = {part: {name: label for label, name in enumerate(own)} for part, own in names.items()}
    examples: dict[str, list[Example]] = {part: [] for part in names}
    try:
        rows = read_csv(read_text(path))
        if tuple(next(rows, ())) != COLUMNS:
            raise Unreadable("it has other columns")
        for number, row in enumerate(rows, start=2):
            part, image, name = [*row, "", "", ""][:3]
            known = labels.get(part, {})
            label = known.get(read_cell(name), known.get(name))
            if len(row) != len(COLUMNS) or label is None:
                raise Unreadable(f"row {number} is not of this run")
            examples[part].append(Example(_image_in(image), label))
    except Unreadable as error:
        raise PromptotError(
            f"The test images of the run can't be read from '{path}': {error}.",
            fix="Give a folder of images to test on.",
        ) from error
    return {
        part: ImageTask(task, tuple(names[part]), test=tuple(own), template=template)
        for part, own in examples.items()
        if own
    }


def _image_in(cell: str) -> str:
    """The image that a cell names; earlier versions wrote names as they are."""
    image = read_cell(cell)
    as_is = image != cell and not os.path.exists(image) and os.path.exists(cell)  # noqa: PTH110
    return cell if as_is else image
