"""What a report shows, as plain values: whoever has results fills these in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from promptot.reports.details import Details

if TYPE_CHECKING:
    from PIL.Image import Image

Unit = Literal["share", "mass", "seconds", "number"]


@dataclass(frozen=True)
class Measure:
    """One measured number, with the interval it lies in where that is known.

    Example:
        >>> Measure(0.784, interval=(0.751, 0.813))
        Measure(value=0.784, interval=(0.751, 0.813))
    """

    value: float
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Column:
    """One column of a result table.

    Args:
        key: where a row keeps it.
        label: the header.
        unit: "share" (0..1, shown in percent), "mass" (0..1, shown as it is), "seconds", "number".
        better: which direction is good; None where neither is (no winner, no difference shown).
        note: a sentence that says what it is.
    """

    key: str
    label: str
    unit: Unit = "share"
    better: Literal["higher", "lower"] | None = "higher"
    note: str = ""


COMPARISON_COLUMNS = (
    Column("base", "Base", note="Accuracy on the classes it was adapted to."),
    Column(
        "novel", "Novel", note="Accuracy on classes of the same kind that it saw no example of."
    ),
    Column("harmonic_mean", "Harmonic mean", note="Of base and novel: high only if both are."),
    Column(
        "retention",
        "Other groups",
        note="Accuracy on groups of classes that have nothing to do with the adaptation.",
    ),
    Column(
        "off_diagonal_mass",
        "Off-diagonal mass",
        unit="mass",
        better=None,
        note="Share of the transport plan that links one example to another; 0: point-wise.",
    ),
    Column("seconds", "Time", unit="seconds", better=None, note="Adapting, wall clock."),
)


@dataclass(frozen=True)
class Row:
    """One method's line in a result table; a missing key, None or NaN is shown as a dash."""

    name: str
    measures: Mapping[str, Measure | float | None]

    def measure(self, key: str) -> Measure | None:
        """The measure at `key`, or None where there is nothing to show."""
        found = self.measures.get(key)
        if found is None:
            return None
        measure = found if isinstance(found, Measure) else Measure(float(found))
        return measure if math.isfinite(measure.value) else None


@dataclass(frozen=True)
class ResultTable:
    """Methods side by side; the first row is what the others are compared with.

    Args:
        rows: one a method.
        columns: what is shown, in order.
        caption: a sentence on where the numbers come from (images, seeds, what an interval is).

    Raises:
        ValueError: no rows.
    """

    rows: Sequence[Row]
    columns: Sequence[Column] = COMPARISON_COLUMNS
    caption: str = ""

    def __post_init__(self) -> None:
        if not self.rows:
            raise ValueError("a result table needs at least one row")


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
        details: of one adapted model beside the frozen one.
        examples_title, examples_lead: what stands above the examples.
    """

    title: str
    headline: str
    subtitle: str = ""
    results: ResultTable | None = None
    histories: Sequence[History] = ()
    examples: Sequence[ExampleImage] = ()
    plans: Sequence[PlanPicture] = ()
    recipes: Mapping[str, Mapping[str, object]] = field(default_factory=dict)
    environment: Mapping[str, object] = field(default_factory=dict)
    caveats: Sequence[str] = ()
    notes: Sequence[str] = ()
    retention: ResultTable | None = None
    details: Details = field(default_factory=Details)
    examples_title: str = "What each model sees"
    examples_lead: str = "The three likeliest names of each model."
