from __future__ import annotations

import math
import re

import matplotlib
import numpy as np
import pytest
from markup import SVG, parsed, texts
from PIL import Image

from promptot.reports import Column, History, PlanPicture, Row, Table, write_picture
from promptot.reports.canvas import legend_stroke
from promptot.reports.figures import curves_figure, results_figure
from promptot.reports.heat_maps import plan_figure
from promptot.reports.theme import DARK, LIGHT

NAN = float("nan")
HOSTILE = [
    "<script>alert(1)</script>",
    "$\\frac{1}{0}$ & $",
    "a\x00b\x1b\ud800",
    "苹果 " + "x" * 300,
]


def line_points(root, colour):
    """Points of the drawn line of that colour, or the number of its markers."""
    points = 0
    for element in root.iter():
        style = element.get("style") or ""
        if f"stroke: var(--{colour}" in style and element.tag == f"{SVG}path":
            points = max(points, len(re.findall("[ML]", element.get("d"))))
    return points


def test_curves_of_two_methods():
    histories = [
        History("IVLP", [1, 2, 3], {"total": [3.0, 2.0, 1.0]}),
        History("ot", [1, 2, 3], {"total": [3.0, 2.5, 2.25]}),
    ]
    root = parsed(curves_figure(histories, "total", {"IVLP": 1, "ot": 2}))
    assert line_points(root, "series-1") == line_points(root, "series-2") == 3
    assert "IVLP from 3 to 1; ot from 3 to 2.25" in root.get("aria-label")
    assert "Total loss" in texts(root)


def test_long_curves_are_thinned_to_means():
    values = np.random.default_rng(0).random(10_000)
    history = History("ot", range(10_000), {"total": values})
    svg = curves_figure([history], "total", {"ot": 0})
    assert 60 <= line_points(parsed(svg), "series-0") <= 80
    assert len(svg) < 20_000
    first = f"from {values[:125].mean():.3g} to"
    assert first in svg


@pytest.mark.parametrize("values", [[0.5], [NAN, 0.5, NAN], [NAN, math.inf, 0.5]])
def test_curves_with_a_single_finite_point_show_a_marker(values):
    history = History("ot", range(len(values)), {"total": values})
    root = parsed(curves_figure([history], "total", {"ot": 0}))
    assert list(root.iter(f"{SVG}use"))
    assert "from 0.5 to 0.5" in root.get("aria-label")


@pytest.mark.parametrize("values", [[], [NAN], [NAN, math.inf, -math.inf]])
def test_curves_without_a_finite_point_say_so(values):
    history = History("ot", range(len(values)), {"total": values})
    root = parsed(curves_figure([history], "total", {}))
    assert "not measured" in texts(root)
    assert "not measured" in parsed(curves_figure([], "total", {})).get("aria-label")


def test_curves_that_are_zero_or_negative_or_unknown():
    history = History("a", [1, 2], {"zero": [0.0, 0.0], "below_zero": [-2.0, -1.0]})
    parsed(curves_figure([history], "zero", {"a": 0}))
    root = parsed(curves_figure([history], "below_zero", {"a": 0}))
    assert "below zero" in texts(root)


def test_more_methods_than_colours():
    names = [f"method {i}" for i in range(12)]
    histories = [History(name, [1, 2], {"total": [2.0, 1.0]}) for name in names]
    parsed(curves_figure(histories, "total", {name: i for i, name in enumerate(names)}))
    assert len({legend_stroke(place) for place in range(20)}) == 20


def test_results_show_every_share_and_no_other_column(full_table):
    root = parsed(results_figure(full_table))
    shown = texts(root)
    for text in ("Base", "Novel", "Harmonic mean", "Other classes", "87.9 %", "+18.8", "−8.0"):
        assert text in shown
    assert "Off-diagonal mass" not in shown
    assert "Base: zero-shot 69.2 %, IVLP 87.9 %" in root.get("aria-label")


@pytest.mark.parametrize("values", [[0.0], [1.0], [None, 0.5], [NAN, 0.5], [0.0, 1.0]])
def test_results_at_their_edges(values):
    rows = [Row(str(i), {"x": value}) for i, value in enumerate(values)]
    parsed(results_figure(Table(rows, columns=[Column("x", "X")])))


@pytest.mark.parametrize("value", [None, NAN])
def test_results_without_a_share_are_refused(value):
    with pytest.raises(ValueError, match="no share"):
        results_figure(Table([Row("a", {"base": value})]))


def test_plan_cells_are_shares_of_their_row():
    plan = [[0.2, 0.05, 0.0], [0.1, 0.15, 0.0], [0.0, 0.0, 0.5]]
    root = parsed(plan_figure(PlanPicture(plan, ["apple", "pear", "plum"])))
    shown = texts(root)
    assert [shown.count(text) for text in ("0.80", "0.20", "0.40", "0.60", "1.00")] == [1] * 5
    assert shown.count("0") == 4
    assert shown.count("plum") == 2
    assert "0.150" in root.get("aria-label")


def test_plan_of_one_pair_and_of_very_many():
    assert "1.00" in texts(parsed(plan_figure(PlanPicture([[0.7]], ["apple"]))))
    many = np.full((100, 100), 1e-4)
    svg = plan_figure(PlanPicture(many, [f"name {i}" for i in range(100)]))
    shown = texts(parsed(svg))
    assert "name 31" in shown
    assert "name 32" not in shown
    assert "0.01" not in shown
    assert len(svg) < 1_000_000


def test_plan_with_an_empty_row():
    parsed(plan_figure(PlanPicture([[0.0, 0.0], [0.5, 0.5]], ["a", "b"])))


def test_hostile_names_are_text():
    root = parsed(plan_figure(PlanPicture(np.eye(4), HOSTILE)))
    shown = texts(root)
    assert "<script>alert(1)</sc"[:19] + "…" in shown
    assert "$\\frac{1}{0}$ & $" in shown
    assert "a�b��" in shown
    assert max(map(len, shown)) < 40
    rows = [Row(name, {"x": 0.5}) for name in HOSTILE]
    parsed(results_figure(Table(rows, columns=[Column("x", name) for name in HOSTILE])))
    histories = [History(name, [1, 2], {"$\\bad{": [1.0, 2.0]}) for name in HOSTILE]
    assert "$\\bad{" in texts(parsed(curves_figure(histories, "$\\bad{", {})))


def test_figures_are_the_same_every_time_and_leave_settings_alone(full_table):
    before = dict(matplotlib.rcParams)
    with matplotlib.rc_context({"font.size": 40, "axes.facecolor": "red"}):
        first = results_figure(full_table)
    assert results_figure(full_table) == first
    assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize(("theme", "colours"), [("light", LIGHT), ("dark", DARK)])
def test_picture_for_a_readme(tmp_path, full_table, theme, colours):
    path = tmp_path / "deep" / "picture.png"
    write_picture(full_table, path, title="Gained & $lost", subtitle="On drawings", theme=theme)
    with Image.open(path) as image:
        assert image.width == 1600
        assert 800 < image.height < 1600
        present = {f"#{bytes(pixel[:3]).hex()}" for _, pixel in image.getcolors(1 << 20)}
    for name in ("card", "ink", "series-0", "series-1", "series-2"):
        assert colours[name] in present
    assert [file.name for file in path.parent.iterdir()] == ["picture.png"]


def luminance(colour):
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", [LIGHT, DARK])
def test_contrast_is_enough_to_read(theme):
    """WCAG 2.2: 4.5 to 1 for text, on the page and on a card."""
    assert theme.keys() == LIGHT.keys()

    def contrast(a, b):
        high, low = sorted((luminance(theme[a]), luminance(theme[b])), reverse=True)
        return (high + 0.05) / (low + 0.05)

    for ground in ("card", "paper"):
        for name in ("ink", "muted", "good", "bad", *(f"series-{i}" for i in range(5))):
            assert contrast(name, ground) >= 4.5, name
    assert contrast("on-heat", "heat") >= 4.5
