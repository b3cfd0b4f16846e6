"""What a file of results says of a cell: one typed model, whatever version wrote the line."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, model_validator

RIGHT, WRONG, NOT_READ = "1", "0", "-"
"""What answers are made of, a character an image."""


class Record(BaseModel):
    """A line of a file of results. What this version does not know of it stays as it is.

    Attributes:
        cell: the key that it is found under.
        version: of what decides a key; 1 did not note it.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    cell: str
    version: int = 1


class PartRecord(BaseModel):
    """How one part was answered.

    Attributes:
        accuracy: share of the images that could be read, 0..1.
        right, images: how many were right, and how many could be read.
        classes: how many there were to choose from.
        answers: `RIGHT`, `WRONG` or `NOT_READ` of every image, in order.
    """

    model_config = ConfigDict(extra="allow", strict=True, frozen=True)

    accuracy: float = 0.0
    right: int = 0
    images: int = 0
    classes: int = 0
    answers: str


Number = int | float | None
Training = dict[str, Number]
"""Figures that training gives of itself by name; None: not measured."""


class CellRecord(Record):
    """One cell of a benchmark: what it was made with, and its result or the reason why there is
    none.

    Attributes:
        protocol, task, shots, seed, split: of the cell.
        method: the recipe's name and its overrides.
        recipe: its values, nested.
        backbone, identity: hashes of its weights, and of the function that it is.
        train_images, train_classes: how many were learnt from.
        shot_list: hash of the list of these images.
        data: what a public data set is known by.
        device, precision, versions: of the machine, and of libraries by name.
        parts: how each part was answered; None: there is no result.
        training: see `Training`.
        seconds: of training.
        problem: why there is no result.
    """

    protocol: str = ""
    task: str = ""
    shots: int | None = None
    seed: int = 0
    split: str = ""
    method: str = ""
    recipe: Mapping[str, Any] = {}
    backbone: str = ""
    identity: str = ""
    train_images: int = 0
    train_classes: int = 0
    shot_list: str = ""
    data: str | None = None
    device: str = ""
    precision: str = ""
    versions: Mapping[str, Any] = {}
    parts: dict[str, PartRecord] | None = None
    training: Training = {}
    seconds: float = 0.0
    problem: str = "its line holds no result"

    @property
    def is_result(self) -> bool:
        """Whether it holds a result, and not the reason why there is none."""
        return self.parts is not None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        given = self.model_fields_set
        if "parts" in given and (self.parts is None or not {"training", "seconds"} <= given):
            raise ValueError("a result has 'parts', 'training' and 'seconds'")
        return self
