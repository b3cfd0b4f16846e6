"""What a report shows, as plain values: whoever has results fills these in."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from promptot.reports.tables import Table

if TYPE_CHECKING:
    from PIL.Image import Image

    from promptot.evaluation.calibration import Reliability


@dataclass(frozen=True)
class History:
    """What was logged while one method trained.

    Args:
        name: the method, as in the result table.
        steps: step numbers [T].
        series: name of a quantity -> its values [T]; NaN where it was not measured. Known names
            are "cross_entropy", "preservation", "total", "image_drift", "text_drift",
            "off_diagonal_mass".

    Raises:
        ValueError: a series whose length is not T.
    """

    name: str
    steps: Sequence[float]
    series: Mapping[str, Sequence[float]]

    def __post_init__(self) -> None:
        for key, values in self.series.items():
            if len(values) != len(self.steps):
                raise ValueError(f"{key}: {len(values)} values for {len(self.steps)} steps")


@dataclass(frozen=True)
class Answer:
    """What one model says of an image: (class name, probability in 0..1), the likeliest first."""

    model: str
    guesses: Sequence[tuple[str, float]]


@dataclass(frozen=True)
class ExampleImage:
    """An image, what it shows, and what each model took it for.

    Args:
        image: any PIL image; a small copy of it goes into the page.
        label: its right class.
        answers: one a model.
        note: a few words under the label, such as "novel class" or a file name.
    """

    image: Image
    label: str
    answers: Sequence[Answer]
    note: str = ""


@dataclass(frozen=True)
class PlanPicture:
    """The transport plan of one batch.

    Args:
        plan: [B, B], not negative: row = pair of the adapted model, column = of the frozen one.
        labels: class name of each pair [B].
        title: which batch this is.

    Raises:
        ValueError: not a square plan with one label a row, or one without mass.
    """

    plan: Any  # array or tensor [B, B]
    labels: Sequence[str]
    title: str = ""

    def __post_init__(self) -> None:
        size = len(self.labels)
        mass = self.values
        if any(len(row) != size for row in mass) or len(mass) != size:
            raise ValueError(f"a plan of {size} labels must be [{size}, {size}]")
        if not sum(map(sum, mass)) > 0:
            raise ValueError("a plan must carry some mass")

    @property
    def values(self) -> list[list[float]]:
        """The plan as rows of numbers [B][B]."""
        rows: list[list[float]] = self.plan.tolist() if hasattr(self.plan, "tolist") else self.plan
        return rows

    @property
    def off_diagonal_mass(self) -> float:
        """Share of the mass that links a pair to another pair, in 0..1."""
        values = self.values
        total = sum(map(sum, values))
        return (total - sum(row[i] for i, row in enumerate(values))) / total


@dataclass(frozen=True)
class KeyFigure:
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
    """What one adapted model says of test images, beside the frozen one; all may be left out.

    Args:
        tested: a sentence on which images all of this is about.
        classes: one row a class with test images.
        confusions: the most frequent wrong answers, the most frequent first.
        picture: all answers of the adapted model.
        calibrations: the frozen and the adapted model's.
    """

    tested: str = ""
    classes: Table | None = None
    confusions: Table | None = None
    picture: ConfusionPicture | None = None
    calibrations: Sequence[Calibration] = ()


@dataclass(frozen=True)
class ReportData:
    """Everything on the page; what is left out is not shown.

    Args:
        title: the page's heading.
        headline: one sentence with the result.
        subtitle: what was done, on what.
        results: the methods side by side.
        histories: training curves, one a trained method.
        examples: images with predictions.
        plans: transport plans to draw.
        recipes: method -> its flat settings, shown side by side.
        environment: versions, seed, weight hash, seconds.
        caveats: paragraphs on what the numbers do not say.
        notes: what the run had to leave out, such as unreadable images.
        retention: the same methods where neither was trained.
        key_figures: how far features moved, and what that did to words that are no classes.
        key_figures_lead: a sentence that stands above them.
        details: of one adapted model beside the frozen one, class by class.
        examples_title, examples_lead: what stands above the examples.
    """

    title: str
    headline: str
    subtitle: str = ""
    results: Table | None = None
    histories: Sequence[History] = ()
    examples: Sequence[ExampleImage] = ()
    plans: Sequence[PlanPicture] = ()
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    caveats: Sequence[str] = ()
    notes: Sequence[str] = ()
    retention: Table | None = None
    key_figures: Sequence[KeyFigure] = ()
    key_figures_lead: str = ""
    details: Details = Details()
    examples_title: str = "What each model sees"
    examples_lead: str = "The three likeliest names of each model."
