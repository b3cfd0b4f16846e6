"""What a tuning found: the points that were tried, and which one to choose."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from promptot.experiments.tuning.trial_points import Point, pareto_front, recommend
from promptot.recipes import Recipe

RECIPE = "recipe.yaml"


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was tried and what to choose.

    Attributes:
        folder: where everything was written.
        name: of the images.
        arguments: what `fit` needs beside the recipe: the images, and what is not its default.
        recipe: to start from.
        zero_shot: the frozen model, for comparison; it can't be chosen.
        points: what was tried, in order.
        chosen: position of the chosen point: the recommended one, unless the caller chose another.
        retention: what the retention is, in a few words.
        validation: number of validation images.
        seconds: of all trials, those of earlier calls included.
        finished: whether everything was tried; otherwise the time was up.
        ran: number of trials that this call made.
    """

    folder: Path
    name: str
    arguments: tuple[str, ...]
    recipe: Recipe
    zero_shot: Point
    points: list[Point]
    chosen: int
    retention: str
    validation: int
    seconds: float
    finished: bool
    ran: int = 0

    @cached_property
    def recommended(self) -> int:
        """Position of the point that keeps most of those that are as good as the best."""
        return recommend(self.points)

    @cached_property
    def front(self) -> list[int]:
        """Positions of the points that no other one beats."""
        return pareto_front(self.points)

    @property
    def recipe_file(self) -> Path:
        """The chosen recipe, for `fit`."""
        return self.folder / RECIPE

    def as_json(self) -> dict[str, Any]:
        """All points and which to choose; points are counted from 1."""
        return {
            "points": [point.as_json() for point in self.points],
            "zero_shot": self.zero_shot.as_json(),
            "front": [place + 1 for place in self.front],
            "recommended": self.recommended + 1,
            "chosen": self.chosen + 1,
            "retention": self.retention,
            "validation_images": self.validation,
            "seconds": round(self.seconds, 3),
            "finished": self.finished,
            "ran": self.ran,
            "recipe": str(self.recipe_file),
        }
