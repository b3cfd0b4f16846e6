"""Figures of a run: one small function each, plain values in, an SVG string out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from promptot.files.writing import atomic_write
from promptot.reports.canvas import (
    DASHES,
    MARKERS,
    STAND_INS,
    Colours,
    new_figure,
    plain_axes,
    short,
    to_svg,
)
from promptot.reports.heat import draw_heat
from promptot.reports.page_values import History, Measure, PlanPicture, ResultTable
from promptot.reports.tables import Cell, cells
from promptot.reports.theme import DARK, LIGHT, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MOST_POINTS = 80
MOST_PAIRS = 32
_WRITTEN_PAIRS = 10

PANELS = {
    "total": "Total loss",
    "cross_entropy": "Cross-entropy",
    "preservation": "Preservation term",
    "image_drift": "Drift of image features",
    "text_drift": "Drift of text features",
    "off_diagonal_mass": "Off-diagonal mass of the plan",
    "plan_entropy": "Entropy of the plan",
}


def curves_figure(histories: Sequence[History], key: str, places: Mapping[str, int]) -> str:
    """How one logged quantity went, a line a method.

    Long series are drawn as means of up to 80 equal stretches; values that are not finite are
    left out.

    Args:
        histories: the methods' logs; those without `key` are left out.
        key: name of the series.
        places: method -> its place among all methods, which decides colour, dash and marker.

    Example:
        >>> svg = curves_figure([History("ot", [1, 2], {"total": [2.0, 1.0]})], "total", {"ot": 0})
        >>> svg[:4], "Total loss" in svg
        ('<svg', True)
    """
    drawn = [(h.name, *_thinned(h.steps, h.series[key])) for h in histories if key in h.series]
    drawn = [line for line in drawn if line[1]]
    title = PANELS.get(key, short(key.replace("_", " "), 40))
    with new_figure(4.2, 2.6) as figure:
        axes = figure.add_subplot()
        plain_axes(axes, STAND_INS, title)
        for name, steps, values in drawn:
            place = places.get(name, 0)
            axes.plot(
                steps,
                values,
                color=STAND_INS[f"series-{place % SERIES}"],
                linestyle=DASHES[place % len(DASHES)],
                marker=MARKERS[place % len(MARKERS)] if len(values) == 1 else "",
                linewidth=1.8,
            )
        axes.set_xlabel("step", color=STAND_INS["muted"])
        axes.locator_params(nbins=5)
        if key in ("off_diagonal_mass", "plan_entropy"):
            axes.set_ylim(-0.03, 1.03)
        elif drawn:
            highest = max(max(values) for _, _, values in drawn)
            lowest = min(min(values) for _, _, values in drawn)
            axes.set_ylim(min(0.0, lowest * 1.06), highest * 1.06 if highest > 0 else 1.0)
        else:
            _say_nothing_here(axes)
        story = "; ".join(
            f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, _, values in drawn
        )
        return to_svg(figure, f"{title} by step: {story or 'not measured'}.")


def results_figure(table: ResultTable) -> str:
    """The shares of a result table as dots with their intervals; a rule marks the first row.

    Raises:
        ValueError: the table holds no share.

    Example:
        >>> from promptot.reports.page_values import Column, Row
        >>> rows = [Row("zero-shot", {"base": 0.7}), Row("Prompt-OT", {"base": 0.8})]
        >>> "80.0 %" in results_figure(ResultTable(rows, columns=[Column("base", "Base")]))
        True
    """
    lines = sum(len(members) + 1.7 for _, members in _dots(table))
    with new_figure(4.9, 0.4 + 0.22 * lines) as figure:
        axes = figure.add_subplot()
        _draw_dots(axes, table, STAND_INS)
        return to_svg(figure, f"Accuracies with their intervals: {_story(table)}.")


def plan_figure(picture: PlanPicture) -> str:
    """A transport plan as a heat map: each cell is the share of its row's mass.

    A plan of up to 10 pairs has the shares written in; of more than 32 pairs the first 32 are
    drawn.

    Example:
        >>> svg = plan_figure(PlanPicture([[0.5, 0.0], [0.1, 0.4]], ["apple", "pear"]))
        >>> "0.80" in svg and "apple" in svg
        True
    """
    values = picture.values
    size = min(len(values), MOST_PAIRS)
    shares = [
        [mass / total if (total := sum(row)) > 0 else 0.0 for mass in row[:size]]
        for row in values[:size]
    ]

    def write(i: int, j: int) -> str:
        return f"{shares[i][j]:.2f}" if shares[i][j] >= 0.001 else "0"

    with new_figure(5.0, 4.6) as figure:
        axes = figure.add_subplot()
        draw_heat(axes, shares, picture.labels[:size], write if size <= _WRITTEN_PAIRS else None)
        axes.set_xlabel("pair of the frozen model", color=STAND_INS["muted"])
        axes.set_ylabel("pair of the adapted model", color=STAND_INS["muted"])
        return to_svg(
            figure,
            f"Transport plan of {len(values)} pairs, outlined on the diagonal; share of the mass "
            f"off the diagonal {picture.off_diagonal_mass:.3f}.",
        )


def write_picture(
    table: ResultTable,
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str = "",
    theme: Literal["light", "dark"] = "light",
) -> None:
    """Draw the shares of a result table as a PNG for a README: 1600 pixels wide, read at 800.

    Args:
        table: the methods side by side, as in the report.
        path: where the PNG goes; written atomically.
        title: what the picture says, in a few words.
        subtitle: on which images and classes.
        theme: for a light or a dark background.

    Raises:
        ValueError: the table holds no share.
        PromptotError: the disk is full, or the folder can't be written to.
    """
    colours = LIGHT if theme == "light" else DARK
    lines = sum(len(members) + 1.7 for _, members in _dots(table))
    head = 0.98 if subtitle else 0.7
    height = head + 0.45 + 0.24 * lines
    with new_figure(8.0, height) as figure:
        figure.set_facecolor(colours["card"])
        figure.set_layout_engine(
            "constrained", rect=(0.02, 0.03, 0.95, 0.97 - head / height), w_pad=0, h_pad=0
        )
        place: dict[str, Any] = {"x": 0.03, "ha": "left", "va": "top", "parse_math": False}
        figure.text(
            y=1 - 0.2 / height, s=title, fontsize=15, weight="bold", color=colours["ink"], **place
        )
        if subtitle:
            figure.text(
                y=1 - 0.52 / height, s=subtitle, fontsize=11, color=colours["muted"], **place
            )
        _draw_dots(figure.add_subplot(), table, colours, scale=1.12)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=200, facecolor=colours["card"])


def legend_mark(place: int) -> str:
    """The stroke that stands for the method at `place`, as a small SVG."""
    colour = f"var(--series-{place % SERIES})"
    dash = DASHES[place % len(DASHES)]
    pattern = "" if dash == "-" else " ".join(f"{1.8 * length:g}" for length in dash[1])
    return (
        '<svg class="mark" viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">'
        f'<path d="M1 5H27" fill="none" stroke="{colour}" stroke-width="2.4" '
        f'stroke-dasharray="{pattern or "none"}"/></svg>'
    )


def _dots(table: ResultTable) -> list[tuple[str, list[tuple[int, Measure, Cell]]]]:
    """(column label, [(place of the row, measure, its cell)]) of every share with values."""
    shown = cells(table)
    groups = []
    for number, column in enumerate(table.columns):
        measures = [row.measure(column.key) for row in table.rows]
        lines = [(i, m, shown[i][number]) for i, m in enumerate(measures) if m is not None]
        if column.unit == "share" and lines:
            groups.append((short(column.label, 24), lines))
    return groups


def _story(table: ResultTable) -> str:
    names = [row.name for row in table.rows]
    return "; ".join(
        f"{label}: " + ", ".join(f"{names[place]} {cell.text}" for place, _, cell in lines)
        for label, lines in _dots(table)
    )


def _draw_dots(axes: Axes, table: ResultTable, colours: Colours, scale: float = 1.0) -> None:
    """Groups of dots from the top down; values and differences stand in columns at the right."""
    tones = {"better": "good", "worse": "bad", "equal": "muted", "": "muted"}

    def beside(y: float, text: str, offset: float, colour: str, size: float) -> None:
        axes.annotate(
            text, (1, y), (offset * scale, 0), xycoords=axes.get_yaxis_transform(),
            textcoords="offset points", ha="right", va="center_baseline", color=colours[colour],
            fontsize=size * scale,
        )  # fmt: skip

    groups = _dots(table)
    if not groups:
        raise ValueError("the table has no share to draw")
    plain_axes(axes, colours)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=colours["line"], linewidth=0.7)
    names: dict[float, str] = {}
    heads: list[int] = []
    ends: list[float] = []
    beside(0, "accuracy", 58, "muted", 9)
    if any(cell.difference for _, lines in groups for _, _, cell in lines):
        beside(0, "change", 104, "muted", 9)
    y = 0.0
    for label, lines in groups:
        heads.append(len(names))
        names[y] = label
        if lines[0][0] == 0 and len(lines) > 1:
            axes.vlines(
                100 * lines[0][1].value, y + 0.5, y + len(lines) + 0.5, zorder=1, linewidth=1,
                color=colours["series-0"], linestyle=(0, (2, 2)),
            )  # fmt: skip
        for place, measure, cell in lines:
            y += 1
            names[y] = short(table.rows[place].name, 24)
            colour = colours[f"series-{place % SERIES}"]
            low, high = measure.interval or (measure.value, measure.value)
            ends += [measure.value, low, high]
            axes.hlines(y, 100 * low, 100 * high, color=colour, linewidth=2.2, alpha=0.45)
            axes.plot(
                100 * measure.value, y, MARKERS[place % len(MARKERS)], color=colour, ms=7,
                clip_on=False,
            )  # fmt: skip
            beside(y, cell.text, 58, "ink", 10)
            beside(y, cell.difference, 104, tones[cell.verdict], 10)
        y += 1.7
    axes.set_yticks(list(names), list(names.values()), parse_math=False, fontsize=10 * scale)
    axes.tick_params(axis="y", length=0, labelcolor=colours["ink"])
    axes.tick_params(axis="x", labelsize=9.5 * scale)
    for head in heads:
        axes.get_yticklabels()[head].set_fontweight("bold")
    left = math.floor((min(ends) - 0.01) * 20) / 20
    right = math.ceil((max(ends) + 0.01) * 20) / 20
    axes.set(ylim=(y - 1, -0.6), xlim=(100 * max(0.0, left), 100 * min(1.0, right) + 0.5))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.spines["left"].set_visible(False)


def _say_nothing_here(axes: Axes) -> None:
    axes.text(
        0.5, 0.5, "not measured", transform=axes.transAxes, ha="center", color=STAND_INS["muted"]
    )


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means over up to `_MOST_POINTS` stretches of steps, of what is finite in each."""
    kept = [(float(s), float(v)) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    width = math.ceil(len(kept) / _MOST_POINTS) or 1
    stretches = [kept[start : start + width] for start in range(0, len(kept), width)]
    return (
        [sum(s for s, _ in stretch) / len(stretch) for stretch in stretches],
        [sum(v for _, v in stretch) / len(stretch) for stretch in stretches],
    )
