"""Which images a tuning learns from and which it is judged by; test images are put aside."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptot.data import ImageTask, load_task, split_examples
from promptot.data.dividing import hold_out
from promptot.data.shots import find_unreadable
from promptot.errors import PromptotError
from promptot.recipes import Recipe
from promptot.runs.run_folder import check_apart

FEWEST_IMAGES = 8
"""Validation images below which no setting can be told from another."""


def put_aside(
    data: Any,
    recipe: Recipe,
    folder: Path,
    validation_share: float,
    test_share: float,
) -> ImageTask:
    """Training and validation images; what is for testing is dropped."""
    task = load_task(data)
    if not isinstance(data, ImageTask):
        task = replace(task, template=task.own_template or recipe.data.template)
        if isinstance(data, str | os.PathLike):
            check_apart(folder, Path(data))
        task = hold_out(task, test_share)
    task = replace(task, test=())
    if task.validation:
        return task
    return split_examples(task, seed=0, fractions=(1 - validation_share, validation_share, 0.0))


def validation_images(task: ImageTask) -> ImageTask:
    """The validation images that can be read, as the images to test on."""
    unreadable = {skipped.path for skipped in find_unreadable(task.validation)}
    kept = tuple(example for example in task.validation if example.path not in unreadable)
    return replace(task, train=(), validation=(), test=kept)


def check_validation(fit_part: ImageTask, novel_part: ImageTask | None, fewest: int) -> None:
    """Refuse validation images that say nothing.

    Raises:
        PromptotError: there are too few, or a class has none.
    """
    for what, part in (("", fit_part), (" of held-out classes", novel_part)):
        if part is None:
            continue
        images = len(part.test)
        present = {example.label for example in part.test}
        missing = [n for label, n in enumerate(part.class_names) if label not in present]
        problem = None
        if images < fewest:
            problem = (
                f"There are {images} validation images{what}; on fewer than "
                f"{fewest} no setting can be told from another"
            )
        elif missing:
            problem = f"The class '{missing[0]}' has no validation image"
        if problem:
            raise PromptotError(
                f"{problem}.",
                fix="Add images, raise --validation-share, or give a val folder.",
            )
