"""Tables of values: what a column holds, how a cell reads, and which one is the best."""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Unit = Literal[
    "share", "percent", "points", "mass", "decimal", "seconds", "count", "number", "text", "list"
]
"""What a column's values are: a share in 0..1, shown as "78.4 %", or without the sign ("percent");
a difference of shares ("points"); a share shown as it is ("mass"); any number with a fixed number
of digits ("decimal"); seconds, a count, any other number; words, or several of them by "; "."""

MISSING = "–"
_DIGITS: Mapping[Unit, int] = {
    "share": 1, "percent": 1, "points": 1, "mass": 3, "decimal": 1, "count": 0,
}  # fmt: skip
_UNFIT = "\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"


@dataclass(frozen=True)
class Measure:
    """One measured number, and how sure it is where that is known.

    Args:
        value: the number.
        interval: that it lies in.
        sd: its standard deviation.
        marked: to be marked like the best of a column.

    Example:
        >>> Measure(0.784, interval=(0.751, 0.813)).interval
        (0.751, 0.813)
    """

    value: float
    interval: tuple[float, float] | None = None
    sd: float = math.nan
    marked: bool = False


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Args:
        key: where a row keeps it.
        label: the header.
        unit: what it holds, see `Unit`.
        better: which direction is good; None where neither is (no winner, no difference shown).
        note: a sentence that says what it is.
        digits: behind the point, if not the usual number of them.
        wide: left out on a phone.
    """

    key: str
    label: str
    unit: Unit = "share"
    better: Literal["higher", "lower"] | None = "higher"
    note: str = ""
    digits: int | None = None
    wide: bool = False

    @property
    def is_text(self) -> bool:
        """Whether it holds words, which stand at the left."""
        return self.unit in ("text", "list")

    def write(self, value: float) -> str:
        """A value of this column."""
        return format_value(value, self.unit, self.digits)


COMPARISON_COLUMNS = (
    Column("base", "Base", note="Accuracy on the classes it was adapted to."),
    Column(
        "novel", "Novel", note="Accuracy on classes of the same kind that it saw no example of."
    ),
    Column("harmonic_mean", "Harmonic mean", note="Of base and novel: high only if both are."),
    Column(
        "retention",
        "Other classes",
        note="Accuracy on classes that have nothing to do with the adaptation.",
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
    """One line of a table; a key that is missing, None or NaN is shown as a dash.

    Args:
        name: what stands at its left, such as a method.
        measures: its values by the keys of the columns; a text is shown as it is.
        emphasis: whether the line is printed strong or pale.
        spoken: what a screen reader says after the name.
    """

    name: str
    measures: Mapping[str, Measure | float | str | None]
    emphasis: Literal["", "strong", "pale"] = ""
    spoken: str = ""

    def measure(self, key: str) -> Measure | None:
        """The measure at `key`, or None where there is no number to show."""
        value = self.measures.get(key)
        if value is None or isinstance(value, str):
            return None
        measure = value if isinstance(value, Measure) else Measure(float(value))
        return measure if math.isfinite(measure.value) else None


@dataclass(frozen=True)
class Table:
    """Named lines of values.

    Args:
        rows: at least one where they are compared.
        columns: what is shown, in order.
        caption: on where the values come from (images, seeds, what an interval is).
        title: a few words; a table that has one is printed with it and with its caption.
        compared: whether the first row is what the others are compared with, difference by
            difference.
        corner: header of the rows' names.

    Raises:
        ValueError: no row to compare with.
    """

    rows: Sequence[Row]
    columns: Sequence[Column] = COMPARISON_COLUMNS
    caption: str = ""
    title: str = ""
    compared: bool = True
    corner: str = ""

    def __post_init__(self) -> None:
        if self.compared and not self.rows:
            raise ValueError("a table that compares needs at least one row")

    @classmethod
    def of(cls, columns: Sequence[Column], lines: Iterable[Sequence[Any]], **texts: str) -> Table:
        """Lines that are compared with nothing: a name, and values in the order of the columns."""
        keys = [column.key for column in columns]
        rows = [Row(name, dict(zip(keys, values, strict=True))) for name, *values in lines]
        return cls(rows, columns, compared=False, **texts)


@dataclass(frozen=True)
class Cell:
    """One value as people read it.

    Args:
        text: the number with its unit, words, or a dash.
        spread: its standard deviation, or the interval of a difference; or "".
        interval: its interval, or "".
        difference: to the first row, with its sign, or "".
        verdict: "better", "worse" or "equal" than the first row, or of a difference than none; ""
            where nothing is compared.
        best: the column's best, to the digits shown; or marked so.
    """

    text: str
    spread: str = ""
    interval: str = ""
    difference: str = ""
    verdict: str = ""
    best: bool = False

    @property
    def line(self) -> str:
        """Text and spread."""
        return f"{self.text} {self.spread}".rstrip()


def format_value(value: float, unit: Unit, digits: int | None = None) -> str:
    """A number with its unit, in the digits that make sense to read.

    Example:
        >>> format_value(0.7843, "share"), format_value(0.0, "mass"), format_value(75.2, "seconds")
        ('78.4 %', '0.000', '1 min 15 s')
    """
    if unit == "points":
        return format_difference(value, "percent")
    if unit == "seconds":
        if round(value) >= 3600:
            return f"{round(value / 60) // 60} h {round(value / 60) % 60} min"
        if round(value) >= 60:
            return f"{round(value) // 60} min {round(value) % 60} s"
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    if unit not in _DIGITS:
        return f"{value:.4g}"
    scaled = 100 * value if unit in ("share", "percent") else value
    text = f"{scaled:.{_DIGITS[unit] if digits is None else digits}f}"
    return f"{text} %" if unit == "share" else text


def format_interval(interval: tuple[float, float], unit: Unit) -> str:
    """Both ends in the digits of `format_value`; the unit of a share is left out.

    Example:
        >>> format_interval((0.751, 0.8134), "share")
        '75.1–81.3'
    """
    low, high = (format_value(end, unit).removesuffix(" %") for end in interval)
    return f"{low}–{high}"


def format_difference(difference: float, unit: Unit) -> str:
    """A difference with its sign; that of two shares is in percentage points.

    Example:
        >>> format_difference(0.0521, "share"), format_difference(-0.031, "share")
        ('+5.2', '−3.1')
    """
    text = format_value(abs(difference), unit).removesuffix(" %")
    if not any(digit in text for digit in "123456789"):
        return f"±{text}"
    return f"{'+' if difference > 0 else '−'}{text}"


def printable(text: str) -> str:
    """One line, without what a terminal would obey, XML forbids or a reader is misled by.

    Control characters, lone surrogates and overrides of the writing direction become U+FFFD.

    Example:
        >>> printable("red\\tpanda \\x1b[31m")
        'red panda �[31m'
    """

    def unfit(character: str) -> bool:
        return unicodedata.category(character) in ("Cc", "Cs") or character in _UNFIT

    return "".join("\N{REPLACEMENT CHARACTER}" if unfit(c) else c for c in " ".join(text.split()))


def cells(table: Table) -> list[list[Cell]]:
    """Every cell of a table [rows][columns]: text, interval, difference to the first row, best."""
    by_column = [_column_cells(table, column) for column in table.columns]
    return [[column[row] for column in by_column] for row in range(len(table.rows))]


def _column_cells(table: Table, column: Column) -> list[Cell]:
    measures = [row.measure(column.key) for row in table.rows]
    best = _best_text(measures, column)
    reference = measures[0] if table.compared else None
    shown: list[Cell] = []
    for number, (row, measure) in enumerate(zip(table.rows, measures, strict=True)):
        if measure is None:
            value = row.measures.get(column.key)
            shown.append(Cell(value if value and isinstance(value, str) else MISSING))
            continue
        cell = write_measure(measure, column)
        difference, verdict = "", cell.verdict
        if number > 0 and reference is not None and column.better is not None:
            gap = measure.value - reference.value
            difference = format_difference(gap, column.unit)
            verdict = _verdict(difference, gap, column)
        marked = measure.marked or cell.text == best
        shown.append(Cell(cell.text, cell.spread, cell.interval, difference, verdict, marked))
    return shown


def write_measure(measure: Measure, column: Column) -> Cell:
    """A measure of a column, as it reads alone.

    Example:
        >>> write_measure(Measure(0.7843, sd=0.0061), Column("hm", "HM", "percent")).line
        '78.4 ± 0.6'
        >>> write_measure(Measure(0.012, (-0.003, 0.027)), Column("gap", "Gap", "points")).line
        '+1.2 [−0.3, +2.7]'
    """
    text = column.write(measure.value)
    if column.unit == "points":
        ends = ", ".join(map(column.write, measure.interval or ()))
        verdict = "" if column.better is None else _verdict(text, measure.value, column)
        return Cell(text, f"[{ends}]" if ends else "", verdict=verdict)
    spread = "" if math.isnan(measure.sd) else f"± {column.write(measure.sd)}"
    interval = "" if measure.interval is None else format_interval(measure.interval, column.unit)
    return Cell(text, spread, interval)


def _verdict(written: str, gap: float, column: Column) -> str:
    if written.startswith("±"):
        return "equal"
    return "better" if (gap > 0) == (column.better == "higher") else "worse"


def _best_text(measures: Sequence[Measure | None], column: Column) -> str | None:
    """The best value as shown, so that what looks equal is marked equal; None if nobody wins."""
    values = [measure.value for measure in measures if measure is not None]
    if column.better is None or column.unit == "points" or len(set(map(column.write, values))) < 2:
        return None
    return column.write(max(values) if column.better == "higher" else min(values))
