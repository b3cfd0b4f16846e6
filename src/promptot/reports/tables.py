"""Result tables: the cells everyone shows, for the terminal (Rich) and in Markdown."""

from __future__ import annotations

import math
import re
import unicodedata
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptot.reports.page_values import Column, ResultTable, Row, Unit

if TYPE_CHECKING:
    from rich.table import Table

MISSING = "–"
_UNFIT = "\u061c\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069\ufffe\uffff"


@dataclass(frozen=True)
class Cell:
    """One number as people read it.

    Args:
        text: the number with its unit, or a dash.
        interval: its interval, or "".
        difference: to the first row, with its sign, or "".
        verdict: "better", "worse" or "equal" than the first row; "" where it is not compared.
        best: the column's best, to the digits shown.
    """

    text: str
    interval: str = ""
    difference: str = ""
    verdict: str = ""
    best: bool = False


def format_value(value: float, unit: Unit) -> str:
    """A number with its unit, in the digits that make sense to read.

    Example:
        >>> format_value(0.7843, "share"), format_value(0.0, "mass"), format_value(75.2, "seconds")
        ('78.4 %', '0.000', '1 min 15 s')
    """
    if unit == "share":
        return f"{100 * value:.1f} %"
    if unit == "mass":
        return f"{value:.3f}"
    if unit == "seconds":
        if round(value) >= 3600:
            return f"{round(value / 60) // 60} h {round(value / 60) % 60} min"
        if round(value) >= 60:
            return f"{round(value) // 60} min {round(value) % 60} s"
        return f"{value:.1f} s" if value < 10 else f"{value:.0f} s"
    return f"{value:.4g}"


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


def cells(table: ResultTable) -> list[list[Cell]]:
    """Every cell of a table [rows][columns]: text, interval, difference to the first row, best."""
    by_column = [_column_cells(table, column) for column in table.columns]
    return [[column[row] for column in by_column] for row in range(len(table.rows))]


def rich_table(table: ResultTable, title: str = "") -> Table:
    """The table for a terminal: the best in bold, the difference to the first row under each.

    Example:
        >>> from rich.console import Console
        >>> from promptot.reports.page_values import Column, Row
        >>> rows = [Row("zero-shot", {"base": 0.7}), Row("Prompt-OT", {"base": 0.8})]
        >>> table = ResultTable(rows, columns=[Column("base", "Base")])
        >>> Console(width=60).print(rich_table(table))  # doctest: +SKIP
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    styles = {"better": "green", "worse": "red", "equal": "dim", "": "dim"}
    shown = Table(
        title=Text(printable(title)) if title else None, box=box.SIMPLE_HEAD, pad_edge=False
    )
    shown.add_column("")
    for column in table.columns:
        label = printable(column.label).replace(" ", "\n")  # narrow enough for 80 columns
        shown.add_column(Text(label), justify="right")
    for row, line in zip(table.rows, cells(table), strict=True):
        texts = [Text(printable(row.name))]
        for cell in line:
            text = Text(cell.text, style="bold" if cell.best else "")
            if cell.difference:
                text.append(f"\n{cell.difference}", style=f"not bold {styles[cell.verdict]}")
            texts.append(text)
        shown.add_row(*texts)
    return shown


def markdown_table(table: ResultTable) -> str:
    """The table in Markdown: the best in bold, the difference to the first row in brackets.

    Example:
        >>> from promptot.reports.page_values import Column, Row
        >>> rows = [Row("zero-shot", {"base": 0.7}), Row("Prompt-OT", {"base": 0.8})]
        >>> print(markdown_table(ResultTable(rows, columns=[Column("base", "Base")])))
        | | Base |
        |---|---:|
        | zero-shot | 70.0 % |
        | Prompt-OT | **80.0 %** (+10.0) |
    """

    def escape(text: str) -> str:
        return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", printable(text))

    def write(cell: Cell) -> str:
        text = f"**{cell.text}**" if cell.best else cell.text
        return f"{text} ({cell.difference})" if cell.difference else text

    lines = ["| | " + " | ".join(escape(column.label) for column in table.columns) + " |"]
    lines.append("|---|" + "---:|" * len(table.columns))
    for row, line in zip(table.rows, cells(table), strict=True):
        lines.append(f"| {escape(row.name)} | " + " | ".join(map(write, line)) + " |")
    return "\n".join(lines)


def _column_cells(table: ResultTable, column: Column) -> list[Cell]:
    best = _best_text(table, column)
    reference = table.rows[0].measure(column.key)
    shown: list[Cell] = []
    for number, row in enumerate(table.rows):
        measure = row.measure(column.key)
        if measure is None:
            shown.append(Cell(MISSING))
            continue
        text = format_value(measure.value, column.unit)
        interval = format_interval(measure.interval, column.unit) if measure.interval else ""
        difference = verdict = ""
        if number > 0 and reference is not None and column.better is not None:
            gap = measure.value - reference.value
            difference = format_difference(gap, column.unit)
            verdict = "better" if (gap > 0) == (column.better == "higher") else "worse"
            if difference.startswith("±"):
                verdict = "equal"
        shown.append(Cell(text, interval, difference, verdict, best=text == best))
    return shown


def _best_text(table: ResultTable, column: Column) -> str | None:
    """The best value as shown, so that what looks equal is marked equal; None if nobody wins."""

    def value(row: Row) -> float:
        measure = row.measure(column.key)
        return math.nan if measure is None else measure.value

    values = [v for v in map(value, table.rows) if not math.isnan(v)]
    texts = {format_value(v, column.unit) for v in values}
    if column.better is None or len(texts) < 2:
        return None
    best = max(values) if column.better == "higher" else min(values)
    return format_value(best, column.unit)
