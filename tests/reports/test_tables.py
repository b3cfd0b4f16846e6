from __future__ import annotations

import csv
import io

import pytest
from rich.console import Console

from promptot.reports import Column, Measure, Row, Table, markdown_table, rich_table
from promptot.reports.page import render_page
from promptot.reports.table_formats import csv_table, latex_table
from promptot.reports.tables import MISSING, cells, format_difference, format_value, printable


def one_column(values, **options):
    rows = [Row(f"method {i}", {"x": value}) for i, value in enumerate(values)]
    table = Table(rows, columns=[Column("x", "X", **options)])
    return [line[0] for line in cells(table)]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.0, "share", "100.0 %"),
        (0.0, "share", "0.0 %"),
        (0.12345, "mass", "0.123"),
        (0.12345, "percent", "12.3"),
        (-0.0123, "points", "−1.2"),
        (2.25, "decimal", "2.2"),
        (61440, "count", "61440"),
        (9.94, "seconds", "9.9 s"),
        (59.4, "seconds", "59 s"),
        (59.6, "seconds", "1 min 0 s"),
        (3725.0, "seconds", "1 h 2 min"),
        (61440, "number", "6.144e+04"),
        (0.25, "number", "0.25"),
    ],
)
def test_values_are_written_for_people(value, unit, text):
    assert format_value(value, unit) == text


def test_a_difference_too_small_to_show_has_no_direction():
    assert format_difference(0.0004, "share") == format_difference(-0.0004, "share") == "±0.0"
    assert format_difference(-0.0006, "share") == "−0.1"


def test_the_best_and_the_differences():
    first, second, third = one_column([0.5, 0.7, 0.4])
    assert [first.best, second.best, third.best] == [False, True, False]
    assert [first.difference, second.difference, third.difference] == ["", "+20.0", "−10.0"]
    assert [first.verdict, second.verdict, third.verdict] == ["", "better", "worse"]


def test_lower_can_be_better():
    first, second = one_column([0.5, 0.4], better="lower")
    assert (first.best, second.best, second.verdict) == (False, True, "better")


def test_what_looks_equal_is_marked_equal():
    first, second, third = one_column([0.70001, 0.70004, 0.6])
    assert (first.best, second.best, third.best) == (True, True, False)
    assert (second.difference, second.verdict) == ("±0.0", "equal")
    assert not any(cell.best for cell in one_column([0.7, 0.7]))


def test_a_column_without_a_direction_has_no_winner():
    for cell in one_column([0.0, 0.3], unit="mass", better=None):
        assert not cell.best
        assert cell.difference == cell.verdict == ""


def test_missing_values_are_dashes_and_never_compared():
    first, second, third = one_column([None, 0.5, float("nan")])
    assert first.text == third.text == MISSING
    assert (second.text, second.difference, second.best) == ("50.0 %", "", False)


def test_intervals_have_the_digits_of_their_value():
    assert one_column([Measure(0.5, (0.4312, 0.5688))])[0].interval == "43.1–56.9"


def written(table, width=100, title="Side by side"):
    console = Console(file=io.StringIO(), width=width)
    console.print(rich_table(table, title))
    return console.file.getvalue()


def test_terminal_and_markdown_show_every_cell(full_table):
    terminal, markdown = written(full_table), markdown_table(full_table)
    for row, line in zip(full_table.rows, cells(full_table), strict=True):
        for cell in line:
            for text in filter(None, (row.name, cell.text, cell.difference)):
                assert text in terminal
                assert text in markdown
    assert markdown.count("**87.9 %**") == 1


def test_terminal_table_fits_80_columns(full_table):
    lines = written(full_table, width=80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "…" not in "".join(lines)


def test_hostile_names_stay_names():
    table = Table([Row("[red]a|b[/red]\x1b[31m\n<b>*", {"x": 0.5})], columns=[Column("x", "[X]|")])
    assert "\x1b" not in written(table)
    assert "[red]a|b[/red]" in written(table)
    line = markdown_table(table).splitlines()[2]
    assert line == r"| \[red\]a\|b\[/red\]" + "�" + r"\[31m \<b\>\* | 50.0 % |"


def test_printable_keeps_joined_emoji_and_other_scripts():
    kept = "पत्ता \N{WOMAN}\u200d\N{PERSONAL COMPUTER} 苹果 naïve"
    assert printable(kept) == kept
    assert printable("a\u202eb\ud800c\x00d") == "a�b�c�d"


KINDS = [
    Column("setting", "Setting", "text"),
    Column("values", "Values", "list"),
    Column("fit", "Fit", "percent"),
    Column("gap", "Gap", "points", better=None),
    Column("images", "Images", "count", better=None),
]


@pytest.fixture
def of_every_kind() -> Table:
    lines = [
        ("a_b", "λ = 1", "x = 1; y = 2", Measure(0.5, sd=0.01), Measure(0.1, (0.05, 0.15)), 12),
        ("c", "", "", 0.75, Measure(-0.1, (-0.2, 0.0), marked=True), "3 of 12"),
    ]
    return Table.of(KINDS, lines, title="Every kind", caption="50 % & more.", corner="Point")


def test_a_cell_has_its_deviation_or_its_interval_and_is_never_compared(of_every_kind) -> None:
    first, second = cells(of_every_kind)
    assert [cell.line for cell in first] == [
        "λ = 1", "x = 1; y = 2", "50.0 ± 1.0", "+10.0 [+5.0, +15.0]", "12",
    ]  # fmt: skip
    assert [cell.line for cell in second] == [
        MISSING, MISSING, "75.0", "−10.0 [−20.0, ±0.0]", "3 of 12",
    ]  # fmt: skip
    assert [cell.best for cell in second] == [False, False, True, True, False]
    assert not any(cell.difference or cell.verdict for cell in (*first, *second))


def test_a_difference_has_a_verdict_where_a_direction_is_good() -> None:
    for better, verdicts in (("higher", ["better", "worse", "equal"]),
                             ("lower", ["worse", "better", "equal"])):  # fmt: skip
        column = Column("x", "X", "points", better)
        lines = [("a", 0.1), ("b", -0.1), ("c", 0.0)]
        shown = [cell for (cell,) in cells(Table.of([column], lines))]
        assert [cell.verdict for cell in shown] == verdicts
        assert not any(cell.best for cell in shown)


def test_every_format_has_every_cell(of_every_kind) -> None:
    terminal = written(of_every_kind, title="")
    markdown, latex = markdown_table(of_every_kind), latex_table(of_every_kind)
    assert "x = 1 " in terminal
    assert "x = 1; y = 2" not in terminal  # a list has a line for each
    assert markdown.splitlines()[:4] == [
        "### Every kind", "", "| Point | Setting | Values | Fit | Gap | Images |",
        "|---|---|---|---:|---:|---:|",
    ]  # fmt: skip
    assert r"| a\_b | λ = 1 | x = 1; y = 2 | 50.0 ± 1.0 | +10.0 \[+5.0, +15.0\] | 12 |" in markdown
    assert markdown.endswith("\n\n50 % & more.")
    assert r"\begin{tabular}{lllrrr}" in latex
    assert r"a\_b & $\lambda$ = 1 & x = 1; y = 2 & 50.0 $\pm$ 1.0" in latex
    assert r"\textbf{75.0}" in latex
    assert r"\caption{Every kind. 50 \% \& more.}" in latex
    for text in ("Every kind", "Point", "Setting", "3 of 12", "50 % & more."):
        assert text in terminal


def test_csv_has_the_values_themselves(of_every_kind) -> None:
    first, second = csv.DictReader(io.StringIO(csv_table(of_every_kind)))
    assert first == {
        "Point": "a_b", "setting": "λ = 1", "values": "x = 1; y = 2", "fit": "0.5", "gap": "0.1",
        "images": "12",
    }  # fmt: skip
    assert second["images"] == "3 of 12"
    assert second["setting"] == ""


def test_a_page_marks_the_kinds_of_columns(of_every_kind) -> None:
    html = render_page("tuning.html.j2", title="t", headline="h", subtitle="", figure="",
                       points=of_every_kind, notes=[], chosen=1, command="c")  # fmt: skip
    assert html.count('class="words"') == 6
    assert '<td role="cell" class="best">75.0</td>' in html
    assert "+10.0<wbr> [+5.0, +15.0]" in html
