"""A benchmark's tables, figures and page, from made-up figures."""

from __future__ import annotations

import csv
import io
import re
from dataclasses import replace
from pathlib import Path

import pytest
from markup import Page, parsed, texts

from promptot.evaluation.statistics import Difference
from promptot.experiments import PROTOCOLS
from promptot.experiments.report.benchmark_figures import (
    Dot,
    Gap,
    Line,
    gaps_figure,
    lines_figure,
    plane_figure,
    strength_families,
)
from promptot.experiments.report.benchmark_page import (
    benchmark_headline,
    render_benchmark_page,
    write_benchmark_page,
)
from promptot.experiments.report.benchmark_tables import (
    benchmark_tables,
    figures_table,
    main_tables,
    task_tables,
    write_tables,
)
from promptot.experiments.scenarios import load_sources
from promptot.experiments.summary import Figure, MethodSummary, Summary
from promptot.reports import Table, rich_table
from promptot.reports.canvas import legend_point
from promptot.reports.table_formats import csv_table
from promptot.reports.tables import MISSING, cells

NAN = float("nan")
HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>\x00'
KEYS = ("harmonic_mean", "base", "novel", "average_harmonic_mean", "retention")


def recipe(kind: str, strength: float = 0.0, design: str = "ivlp") -> dict:
    return {
        "prompts": {"design": design},
        "objective": {"preservation": kind, "strength": strength},
        "optim": {"lr": 0.1},
    }


def method(label: str, shares: tuple[float, ...], gap: float, values: dict) -> MethodSummary:
    figures = dict(zip(KEYS, (Figure(share, 0.01) for share in shares), strict=False))
    return MethodSummary(
        label,
        written=label,
        figures=figures,
        by_task={"animals": figures, "food": figures},
        rank=1.5,
        differences={key: Difference(gap, gap - 0.02, gap + 0.02) for key in figures},
        diagnostics={"off_diagonal_mass": 0.25, "seconds": 12.0},
        recipe=values,
        settings={"objective.strength": values["objective"]["strength"], "optim.lr": 0.1},
    )


@pytest.fixture(scope="module")
def summary() -> Summary:
    protocol = PROTOCOLS["base-to-novel"]
    scenarios = protocol.scenarios(
        load_sources(["bundled:animals", "bundled:food"]), [], [4], "test"
    )
    zero = method("zero-shot", (0.7, 0.7, 0.7, 0.7, 0.65), 0.0, recipe("none", design="none"))
    probe = MethodSummary(
        "linear-probe",
        "linear-probe",
        {"base": Figure(0.9, NAN)},
        {},
        None,
        {},
        {},
        recipe("x"),
        {"optim.lr": 0.1},
    )
    return Summary(
        protocol="base-to-novel",
        split="test",
        metrics=protocol.metrics(scenarios),
        methods=[
            replace(zero, differences={}),
            method("ot", (0.74, 0.8, 0.69, 0.73, 0.64), 0.04, recipe("ot", 10.0)),
            method(
                "ot[objective.strength=3]", (0.71, 0.82, 0.63, 0.7, 0.6), 0.01, recipe("ot", 3.0)
            ),
            method("ivlp", (0.69, 0.84, 0.59, 0.69, 0.5), -0.01, recipe("none")),
            probe,
        ],
        control="zero-shot",
        tasks=["animals", "food"],
        shots=[4],
        seeds=[1, 2],
        backbone="bundled:tiny",
        notes=["Something to know."],
    )


def csv_table_of(summary: Summary) -> str:
    return csv_table(figures_table(summary))


def header(table: Table) -> list[str]:
    return [table.corner, *(column.label for column in table.columns)]


def lines(table: Table) -> list[list[str]]:
    return [
        [row.name, *(cell.line for cell in own)]
        for row, own in zip(table.rows, cells(table), strict=True)
    ]


def strong(table: Table) -> set[tuple[int, int]]:
    """(row, column) of what is marked; the names are column 0."""
    return {
        (row, column)
        for row, own in enumerate(cells(table))
        for column, cell in enumerate(own, start=1)
        if cell.best
    }


def test_the_main_table_and_the_differences(summary: Summary) -> None:
    main, gaps, training, *by_task = benchmark_tables(summary)
    assert header(main) == ["", "HM", "Base", "Novel", "Mean of HMs", "Retention", "Rank"]
    assert lines(main)[0][:3] == ["zero-shot", "70.0 ± 1.0", "70.0 ± 1.0"]
    assert lines(main)[4] == ["linear-probe", MISSING, "90.0", MISSING, MISSING, MISSING, MISSING]
    assert strong(main) == {(1, 1), (4, 2), (0, 3), (1, 4), (0, 5)}
    assert [row.name for row in gaps.rows] == [m.label for m in summary.methods[1:]]
    assert lines(gaps)[0][1] == "+4.0 [+2.0, +6.0]"
    assert lines(gaps)[3][1] == MISSING
    assert {row for row, _ in strong(gaps)} == {0}  # the others' intervals hold zero
    assert header(training) == ["", "Off-diagonal mass", "Seconds"]
    assert lines(training)[0][1:] == ["0.250", "12.0"]
    assert lines(training)[4][1:] == [MISSING, MISSING]
    assert [table.title for table in by_task] == ["Task: animals", "Task: food"]
    assert main_tables(summary) == [main, gaps, training]
    assert list(task_tables(summary)) == ["animals", "food"]


def test_several_seeds_say_what_their_intervals_are_over(summary: Summary) -> None:
    two = benchmark_tables(summary)[1].caption
    assert "over seeds and images (for the seeds Student's t = 12.7, so wide" in two
    three = benchmark_tables(replace(summary, seeds=[1, 2, 3]))[1].caption
    assert "over seeds and images (for the seeds Student's t = 4.3); bold" in three
    assert "intervals over seeds and images." in render_benchmark_page(summary)
    assert {row["over"] for row in csv.DictReader(io.StringIO(csv_table_of(summary)))} == {
        "", "seeds and images",
    }  # fmt: skip


def test_one_seed_has_intervals_over_images_only_and_nothing_bold(summary: Summary) -> None:
    methods = [
        replace(
            m,
            differences={key: replace(gap, over_seeds=False) for key, gap in m.differences.items()},
        )
        for m in summary.methods
    ]
    one = replace(summary, seeds=[1], methods=methods)
    tables = benchmark_tables(one)
    assert not any(strong(table) for table in tables)
    assert "95 % intervals over images only" in tables[1].caption
    assert "seed 1 only, so nothing is bold" in tables[0].caption
    assert benchmark_headline(one).endswith(
        "+4.0 [+2.0, +6.0] points, an interval over images only: one seed tells nothing of others."
    )
    assert benchmark_headline(replace(one, control="ot")).endswith(
        "with one seed, which tells nothing of others."
    )
    assert "intervals over images only (one seed)." in render_benchmark_page(one)
    assert {row["over"] for row in csv.DictReader(io.StringIO(csv_table_of(one)))} == {"", "images"}


def test_tables_on_the_disk(summary: Summary, tmp_path: Path) -> None:
    markdown, latex, figures = (path.read_text() for path in write_tables(summary, tmp_path))
    assert r"| ot\[objective.strength=3\] | 71.0 ± 1.0 |" in markdown
    assert "Something to know." in markdown
    assert latex.count(r"\begin{tabular}{lrrrrrr}") == 1
    assert r"\textbf{74.0 $\pm$ 1.0}" in latex
    for table in re.findall(r"\\midrule\n(.*?)\\bottomrule", latex, re.S):
        rows = table.strip().splitlines()
        assert len({row.count(" & ") for row in rows}) == 1
    rows = list(csv.DictReader(io.StringIO(figures)))
    (row,) = [
        r for r in rows
        if (r["method"], r["task"], r["metric"]) == ("ot", "all", "harmonic_mean")
    ]  # fmt: skip
    assert [float(row[key]) for key in ("mean", "sd", "difference", "low", "high", "rank")] == [
        0.74, 0.01, 0.04, 0.02, 0.06, 1.5,
    ]  # fmt: skip
    assert row["control"] == "zero-shot"
    assert len([r for r in rows if r["task"] == "food"]) == 4 * len(KEYS)


def test_names_are_escaped_everywhere(summary: Summary, tmp_path: Path) -> None:
    hostile = replace(summary.methods[1], label=HOSTILE)
    spoilt = replace(summary, methods=[summary.methods[0], hostile], notes=[HOSTILE])
    markdown, latex, _ = (path.read_text() for path in write_tables(spoilt, tmp_path))
    assert "<script>" not in markdown.replace("\\<script\\>", "")
    assert "\x00" not in markdown + latex
    percent = replace(summary.methods[1], label="50% & a_b")
    assert (
        r"50\% \& a\_b"
        in write_tables(replace(summary, methods=[percent]), tmp_path)[1].read_text()
    )
    page = Page(render_benchmark_page(spoilt))
    assert not page.all("script")
    assert not page.all("img")
    assert list(csv.reader(io.StringIO(csv_table_of(spoilt))))


def test_the_terminal_table_fits_80_columns(summary: Summary) -> None:
    from rich.console import Console

    for table in benchmark_tables(summary)[:2]:
        console = Console(width=80, file=io.StringIO())
        console.print(rich_table(table))
        shown = console.file.getvalue()
        assert "…" not in shown
        assert max(map(len, shown.splitlines())) <= 80
        for number in re.findall(r"\d+\.\d", " ".join(lines(table)[1])):
            assert number in shown


def test_a_curve_over_strengths_is_called_by_its_recipe(summary: Summary, tmp_path: Path) -> None:
    names = {"ot": "strong", "ot[objective.strength=3]": "weak"}
    renamed = [replace(m, label=names.get(m.label, m.label)) for m in summary.methods]
    write_benchmark_page(replace(summary, methods=renamed), tmp_path / "report.html")
    text = "".join(Page((tmp_path / "report.html").read_text()).texts)
    assert "HM against λ: ot; dashed: zero-shot." in text
    assert "strong has the best HM" in text


def test_the_page(summary: Summary, tmp_path: Path) -> None:
    write_benchmark_page(summary, tmp_path / "report.html")
    html = (tmp_path / "report.html").read_text()
    page = Page(html)
    assert set(re.findall(r"https?://[^\s\"'<]*", html)) == {"http://www.w3.org/2000/svg"}
    for tag, attributes in page.elements:
        assert tag not in ("script", "link", "iframe", "img")
        assert not [name for name in attributes if name.startswith("on")]
    captions = "".join(page.texts)
    assert "Base against novel" in captions
    assert "HM against λ: ot; dashed: zero-shot." in captions
    assert "Retention against λ: ot; dashed: zero-shot." in captions
    assert len(page.all("figure")) == 4
    assert "Something to know." in page.text
    assert "choosing settings" not in page.text
    assert "+4.0 [+2.0, +6.0]" in page.text
    assert "objective.strength = 3" in page.text
    assert page.text.count("optim.lr = 0.1") == 1  # the same for all
    assert page.text.count("objective.strength = 0") == 2
    validation = replace(summary, split="validation")
    assert "choosing settings" in Page(render_benchmark_page(validation)).text


def test_the_headline_says_what_is_clear(summary: Summary) -> None:
    assert benchmark_headline(summary) == (
        "ot has the best HM: 74.0 ± 1.0, against zero-shot +4.0 [+2.0, +6.0] points."
    )
    without = replace(summary, methods=[summary.methods[i] for i in (0, 2, 3)])
    assert benchmark_headline(without).endswith(
        "+1.0 [−1.0, +3.0] points, which is no clear difference."
    )
    control, *others = (summary.methods[i] for i in (1, 2, 3))
    own = replace(summary, control="ot", methods=[replace(control, differences={}), *others])
    assert benchmark_headline(own) == (
        "ot has the best HM: 74.0 ± 1.0; 0 of 2 others differ clearly from it."
    )
    nobody = replace(summary, methods=[replace(summary.methods[0], figures={})])
    assert benchmark_headline(nobody) == "No method has figures."
    render_benchmark_page(nobody)


def dot(place: int, name: str, x: float, y: float, x_sd: float = NAN) -> Dot:
    return Dot(place, name, Figure(x, x_sd), Figure(y, NAN))


def gap(place: int, name: str, value: float, low: float, high: float) -> Gap:
    return Gap(place, name, Difference(value, low, high))


def test_points_lie_where_they_should_on_the_contours() -> None:
    root = parsed(plane_figure([dot(0, "a", 0.6, 0.6, 0.01), dot(1, "b", 0.8, 0.48)]))
    assert "HM 60" in texts(root)  # both methods lie on it
    assert "a 60.0 and 60.0 %; b 80.0 and 48.0 %" in root.get("aria-label")
    for x, y in ((0.0, 0.0), (1.0, 1.0), (0.0, 1.0), (0.5, 0.501)):
        parsed(plane_figure([dot(0, "a", x, y)]))


def test_lines_over_lambda_start_at_zero() -> None:
    line = Line(1, "ot <b>", [0, 0.5, 10], [Figure(0.5, 0.01), Figure(0.7, NAN), Figure(0.6, 0)])
    root = parsed(lines_figure("HM", "λ", [line], level=0.55))
    assert {"0", "0.5", "10"} <= set(texts(root))
    parsed(lines_figure("K", "K", [Line(0, "x", [4], [Figure(0.5, NAN)])]))
    parsed(lines_figure("K", "K", [Line(0, "x", [0], [Figure(0.0, NAN)])]))


def test_gaps_and_what_is_empty() -> None:
    root = parsed(
        gaps_figure("HM", "ivlp", [gap(2, "ot", 0.012, -0.003, 0.02), gap(9, "x", 0, 0, 0)])
    )
    assert {"+1.2", "±0.0", "points above ivlp"} <= set(texts(root))
    for draw in (
        lambda: plane_figure([]),
        lambda: gaps_figure("", "", []),
        lambda: lines_figure("", "", []),
    ):
        with pytest.raises(ValueError, match="nothing to draw"):
            draw()


def test_every_place_has_its_own_marker() -> None:
    marks = [legend_point(place) for place in range(35)]
    assert len(set(marks)) == 35
    assert all(parsed_mark.startswith("<svg") for parsed_mark in marks)


def test_families_differ_in_their_strength_alone() -> None:
    other = {**recipe("ot", 1.0), "optim": {"lr": 0.2}}
    methods = {
        "a": recipe("ot", 10.0),
        "a[objective.strength=1,optim.lr=0.1]": recipe("ot", 1.0),
        "faster": other,
        "pointwise": recipe("pointwise", 2.0),
        "free": recipe("none"),
        "probe": recipe("none", design="linear-probe"),
    }
    assert strength_families(methods, "objective") == {
        "a": [(0.0, "free"), (1.0, "a[objective.strength=1,optim.lr=0.1]"), (10.0, "a")],
        "pointwise": [(0.0, "free"), (2.0, "pointwise")],
    }
    assert strength_families(methods, "vocabulary") == {}
    del methods["a"]
    assert "a[optim.lr=0.1]" in strength_families(methods, "objective")


def test_a_strength_that_changes_over_the_steps_has_no_point_at_zero() -> None:
    """A term with a ramp and no term at all differ in more than λ."""

    def chosen(kind: str, strength: float, control: str) -> dict:
        values = recipe(kind, strength)
        return {**values, "objective": {**values["objective"], "control": control}}

    maple, ramp = chosen("none", 0.0, "constant"), chosen("ot", 10.0, "ramp")
    assert strength_families({"maple": maple, "maple-ot-ramp": ramp}, "objective") == {}
    one = {"maple": maple, "ot": chosen("ot", 1.0, "constant")}
    assert strength_families(one, "objective") == {"ot": [(0.0, "maple"), (1.0, "ot")]}
    two = {"ramp": ramp, "ramp[objective.strength=3]": chosen("ot", 3.0, "ramp")}
    assert strength_families({"maple": maple, **two}, "objective") == {
        "ramp": [(3.0, "ramp[objective.strength=3]"), (10.0, "ramp")]
    }
    steady = {"ot": chosen("ot", 10.0, "constant"), "ot[objective.strength=3]": chosen(
        "ot", 3.0, "constant"
    )}  # fmt: skip
    found = strength_families({"maple": maple, **two, **steady}, "objective")
    assert found["ot"] == [(0.0, "maple"), (3.0, "ot[objective.strength=3]"), (10.0, "ot")]
    assert [label for _, label in found["ramp"]] == ["ramp[objective.strength=3]", "ramp"]
