"""What a page says of one adapted model beside the frozen one, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from promptot.evaluation.calibration import Reliability


@dataclass(frozen=True)
class Fact:
    """One figure with its name and a sentence on what it is.

    Args:
        label: its name.
        value: as it is shown, unit included.
        note: what it says.
    """

    label: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class ClassResult:
    """How many test images of one class each model got right.

    Args:
        name: the class.
        images: of it that were tested.
        before, after: of them right, by the frozen and by the adapted model.
    """

    name: str
    images: int
    before: int
    after: int

    @property
    def change(self) -> float:
        """Difference of the two shares."""
        return (self.after - self.before) / self.images


@dataclass(frozen=True)
class Confusion:
    """One wrong answer that the adapted model gives.

    Args:
        right: the class.
        taken_for: what the adapted model takes it for.
        count: how often.
        before: how often the frozen model does the same.
        images: of the right class that were tested.
    """

    right: str
    taken_for: str
    count: int
    before: int
    images: int


@dataclass(frozen=True)
class ConfusionPicture:
    """How often each class was taken for which.

    Args:
        counts: [C][C], row = right class, column = answer.
        labels: class names [C].

    Raises:
        ValueError: not a square of counts with one label a row.
    """

    counts: Sequence[Sequence[int]]
    labels: Sequence[str]

    def __post_init__(self) -> None:
        size = len(self.labels)
        if len(self.counts) != size or any(len(row) != size for row in self.counts):
            raise ValueError(f"confusions of {size} labels must be [{size}, {size}]")


@dataclass(frozen=True)
class Calibration:
    """Whether one model's probabilities mean what they say."""

    name: str
    reliability: Reliability


@dataclass(frozen=True)
class Details:
    """All of it; what is left out is not shown.

    Args:
        tested: a sentence on which images all of this is about.
        classes: one a class with test images.
        confusions: the most frequent wrong answers, the most frequent first.
        picture: all answers of the adapted model.
        calibrations: the frozen and the adapted model's.
        facts: how far features moved, and what that did to words that are no classes.
        facts_lead: a sentence that stands above them.
    """

    tested: str = ""
    classes: Sequence[ClassResult] = ()
    confusions: Sequence[Confusion] = ()
    picture: ConfusionPicture | None = None
    calibrations: Sequence[Calibration] = ()
    facts: Sequence[Fact] = ()
    facts_lead: str = ""
