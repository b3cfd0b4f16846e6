"""A table in a terminal (Rich), Markdown, LaTeX and CSV; in a page: `templates/table.html.j2`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING

from promptot.files.csv_text import Number, csv_line
from promptot.reports.tables import Cell, Column, Row, Table, cells, printable

if TYPE_CHECKING:
    import rich.table
    from rich.text import Text

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
    "±": r"$\pm$", "−": "$-$", "–": "--", "→": r"$\to$", "†": r"$\dagger$", "λ": r"$\lambda$",
}  # fmt: skip
_STYLES = {"better": "green", "worse": "red", "equal": "dim", "": "dim"}


def rich_table(table: Table, title: str = "") -> rich.table.Table:
    """The table for a terminal: the best in bold; deviations and differences below their figures.

    Example:
        >>> from rich.console import Console
        >>> rows = [Row("zero-shot", {"base": 0.7}), Row("Prompt-OT", {"base": 0.8})]
        >>> table = Table(rows, columns=[Column("base", "Base")])
        >>> Console(width=60).print(rich_table(table))  # doctest: +SKIP
    """
    import rich.table
    from rich import box
    from rich.text import Text

    title = title or table.title
    shown = rich.table.Table(
        title=Text(printable(title)) if title else None,
        caption=Text(printable(table.caption), style="dim") if table.title else None,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    shown.add_column(printable(table.corner), overflow="fold")
    for column in table.columns:
        label = printable(column.label)
        if not column.is_text:
            label = label.replace(" ", "\n")  # so that as much as can be fits 80 columns
        shown.add_column(
            Text(label), justify="left" if column.is_text else "right", overflow="fold"
        )
    for row, line in zip(table.rows, cells(table), strict=True):
        name = Text(printable(row.name).replace("[", "\n[", 1))
        style = {"strong": "bold", "pale": "dim", "": ""}[row.emphasis]
        shown.add_row(name, *map(_rich_cell, line, table.columns), style=style)
    return shown


def _rich_cell(cell: Cell, column: Column) -> Text:
    from rich.text import Text

    text = printable(cell.text)
    if column.unit == "list":
        text = text.replace("; ", "\n")
    shown = Text(text, style="bold" if cell.best else "")
    if cell.spread:
        shown.append("\n" + cell.spread.replace(", ", ",\n"), style="not bold dim")
    if cell.difference:
        shown.append(f"\n{cell.difference}", style=f"not bold {_STYLES[cell.verdict]}")
    return shown


def markdown_table(table: Table) -> str:
    """The table in Markdown: the best in bold, the difference to the first row in brackets.

    Example:
        >>> rows = [Row("zero-shot", {"base": 0.7}), Row("Prompt-OT", {"base": 0.8})]
        >>> print(markdown_table(Table(rows, columns=[Column("base", "Base")])))
        | | Base |
        |---|---:|
        | zero-shot | 70.0 % |
        | Prompt-OT | **80.0 %** (+10.0) |
    """

    def write(cell: Cell) -> str:
        difference = f" ({cell.difference})" if cell.difference else ""
        return _written(cell, escape_markdown, "**{}**") + difference

    head = [escape_markdown(text) for text in (table.corner, *(c.label for c in table.columns))]
    lines = [f"| {' | '.join(head)} |".replace("|  |", "| |", 1)]
    lines.append("|---|" + "".join("---|" if c.is_text else "---:|" for c in table.columns))
    for row, line in zip(table.rows, cells(table), strict=True):
        lines.append(f"| {' | '.join([escape_markdown(row.name), *map(write, line)])} |")
    if table.title:
        lines = [f"### {escape_markdown(table.title)}", "", *lines]
        lines += ["", escape_markdown(table.caption)] if table.caption else []
    return "\n".join(lines)


def latex_table(table: Table) -> str:
    """The table for LaTeX with the package booktabs.

    Example:
        >>> rows = [Row("a_b", {"hm": 0.7})]
        >>> text = latex_table(Table(rows, [Column("hm", "HM", "percent")], title="T"))
        >>> r"a\\_b & 70.0" in text
        True
    """

    def line(texts: list[str]) -> str:
        return rf"    {' & '.join(texts)} \\"

    head = [table.corner, *(column.label for column in table.columns)]
    rows = [
        line([escape_latex(row.name), *(_written(c, escape_latex, r"\textbf{{{}}}") for c in own)])
        for row, own in zip(table.rows, cells(table), strict=True)
    ]
    align = "".join("l" if column.is_text else "r" for column in table.columns)
    return "\n".join([
        r"\begin{table}",
        r"  \centering",
        rf"  \caption{{{escape_latex(f'{table.title}. {table.caption}'.strip())}}}",
        rf"  \begin{{tabular}}{{l{align}}}",
        r"    \toprule",
        line([escape_latex(text) for text in head]),
        r"    \midrule",
        *rows,
        r"    \bottomrule",
        r"  \end{tabular}",
        r"\end{table}",
    ])  # fmt: skip


def csv_table(table: Table) -> str:
    """The values as CSV, six digits of each number; the header has the columns' keys.

    Example:
        >>> print(csv_table(Table([Row("=a", {"hm": 2 / 3})], [Column("hm", "HM")], corner="name")))
        name,hm
        '=a,0.666667
        <BLANKLINE>
    """

    def write(row: Row, column: Column) -> str:
        value, measure = row.measures.get(column.key), row.measure(column.key)
        if isinstance(value, str):
            return value
        return Number("" if measure is None else f"{measure.value:.6g}")

    lines = [[table.corner, *(column.key for column in table.columns)]]
    lines += [[row.name, *(write(row, column) for column in table.columns)] for row in table.rows]
    return "".join(map(csv_line, lines))


def escape_markdown(text: str) -> str:
    """Text that Markdown takes as it is."""
    return re.sub(r"([\\`*_<>\[\]|])", r"\\\1", printable(text))


def escape_latex(text: str) -> str:
    """Text that LaTeX prints as it is."""
    return "".join(_LATEX.get(character, character) for character in printable(text))


def _written(cell: Cell, escape: Callable[[str], str], strong: str) -> str:
    text = escape(cell.line)
    return strong.format(text) if cell.best else text
