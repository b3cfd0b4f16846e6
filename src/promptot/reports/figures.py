"""Figures of a run: one small function each, plain values in, an SVG string out."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from promptot.files.writing import atomic_write
from promptot.reports import canvas
from promptot.reports.tables import Cell, Measure, Table, cells, format_value
from promptot.reports.theme import DARK, LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from promptot.reports.page_values import Calibration, History

_MOST_POINTS = 80

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
        >>> from promptot.reports import History
        >>> svg = curves_figure([History("ot", [1, 2], {"total": [2.0, 1.0]})], "total", {"ot": 0})
        >>> svg[:4], "Total loss" in svg
        ('<svg', True)
    """
    drawn = [(h.name, *_thinned(h.steps, h.series[key])) for h in histories if key in h.series]
    drawn = [line for line in drawn if line[1]]
    title = PANELS.get(key, canvas.short(key.replace("_", " "), 40))
    with canvas.page_axes(4.2, 2.6, title) as axes:
        for name, steps, values in drawn:
            place = places.get(name, 0)
            axes.plot(
                steps, values, color=canvas.series_colour(place), linestyle=canvas.dash(place),
                linewidth=1.8, marker=canvas.marker(place) if len(values) == 1 else "",
            )  # fmt: skip
        canvas.name_axes(axes, "step")
        axes.locator_params(nbins=5)
        if key in ("off_diagonal_mass", "plan_entropy"):
            axes.set_ylim(-0.03, 1.03)
        elif drawn:
            highest = max(max(values) for _, _, values in drawn)
            lowest = min(min(values) for _, _, values in drawn)
            axes.set_ylim(min(0.0, lowest * 1.06), highest * 1.06 if highest > 0 else 1.0)
        else:
            axes.text(
                0.5, 0.5, "not measured", transform=axes.transAxes, ha="center",
                color=canvas.STAND_INS["muted"],
            )  # fmt: skip
        story = "; ".join(
            f"{name} from {values[0]:.3g} to {values[-1]:.3g}" for name, _, values in drawn
        )
        return canvas.to_svg(axes, f"{title} by step: {story or 'not measured'}.")


def results_figure(table: Table) -> str:
    """The shares of a table as dots with their intervals; a rule marks the first row.

    Raises:
        ValueError: the table holds no share, see `has_shares`.

    Example:
        >>> from promptot.reports import Column, Row
        >>> rows = [Row("zero-shot", {"base": 0.7}), Row("Prompt-OT", {"base": 0.8})]
        >>> "80.0 %" in results_figure(Table(rows, columns=[Column("base", "Base")]))
        True
    """
    groups = _dots(table)
    with canvas.page_axes(4.9, 0.4 + 0.22 * _height(groups)) as axes:
        _draw_dots(axes, groups, canvas.STAND_INS)
        story = "; ".join(
            f"{label}: " + ", ".join(f"{dot.name} {dot.cell.text}" for dot in dots)
            for label, dots in groups
        )
        return canvas.to_svg(axes, f"Accuracies with their intervals: {story}.")


def has_shares(table: Table) -> bool:
    """Whether `results_figure` has something to draw."""
    keys = [column.key for column in table.columns if column.unit == "share"]
    return any(row.measure(key) for row in table.rows for key in keys)


def reliability_figure(calibration: Calibration, place: int) -> str:
    """Accuracy over confidence in equal bins; the diagonal is perfect, the bars below count images.

    Args:
        calibration: one model's.
        place: of the model, which decides its colour.
    """
    import numpy as np

    bins = calibration.reliability
    width = bins.edges[1] - bins.edges[0]
    colour = canvas.series_colour(place)
    with canvas.new_figure(3.7, 3.7) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        error = format_value(bins.error, "share")
        canvas.plain_axes(upper, canvas.STAND_INS, f"{calibration.name}: error {error}")
        canvas.plain_axes(lower, canvas.STAND_INS)
        middles = (bins.edges[:-1] + bins.edges[1:]) / 2
        filled = bins.counts > 0
        upper.plot(
            [0, 1], [0, 1], color=canvas.STAND_INS["muted"], linewidth=1, linestyle=(0, (4, 2))
        )
        upper.bar(middles[filled], bins.accuracy[filled], width * 0.92, color=colour, alpha=0.35)
        upper.plot(bins.confidence[filled], bins.accuracy[filled], "o", color=colour, ms=5)
        upper.set(xlim=(0, 1), ylim=(0, 1.03))
        canvas.name_axes(upper, y="accuracy")
        lower.bar(middles, bins.counts, width * 0.92, color=colour)
        canvas.name_axes(lower, "confidence", "images")
        lower.locator_params(axis="y", nbins=2, integer=True)
        ticks = np.linspace(0, 1, 6)
        for write_ticks in (upper.set_xticks, lower.set_xticks, upper.set_yticks):
            write_ticks(ticks, [f"{100 * x:g} %" for x in ticks])
        upper.tick_params(labelbottom=False)
        story = "; ".join(
            f"{int(count)} images at {100 * confidence:.0f} % confidence are right in "
            f"{100 * right:.0f} %"
            for count, confidence, right in zip(
                bins.counts, bins.confidence, bins.accuracy, strict=True
            )
            if count > 0
        )
        return canvas.to_svg(
            figure,
            f"Reliability of {calibration.name}, expected calibration error {error}: {story}.",
        )


def write_picture(
    table: Table,
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str = "",
    theme: Literal["light", "dark"] = "light",
) -> None:
    """Draw the shares of a table as a PNG for a README: 1600 pixels wide, read at 800.

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
    groups = _dots(table)
    head = 0.98 if subtitle else 0.7
    height = head + 0.45 + 0.24 * _height(groups)
    with canvas.new_figure(8.0, height) as figure:
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
        axes = figure.add_subplot()
        canvas.plain_axes(axes, colours)
        _draw_dots(axes, groups, colours, scale=1.12)
        with atomic_write(path) as temporary:
            figure.savefig(temporary, format="png", dpi=200, facecolor=colours["card"])


@dataclass(frozen=True)
class _Dot:
    """A share of one row."""

    place: int
    name: str
    measure: Measure
    cell: Cell


_Groups = list[tuple[str, list[_Dot]]]
"""Label of a column with shares -> its dots."""


def _dots(table: Table) -> _Groups:
    if not has_shares(table):
        raise ValueError("the table has no share to draw")
    shown = cells(table)
    groups = []
    for number, column in enumerate(table.columns):
        dots = [
            _Dot(place, row.name, measure, shown[place][number])
            for place, row in enumerate(table.rows)
            if (measure := row.measure(column.key)) is not None
        ]
        if column.unit == "share" and dots:
            groups.append((canvas.short(column.label, 24), dots))
    return groups


def _height(groups: _Groups) -> float:
    """In lines."""
    return sum(len(dots) + 1.7 for _, dots in groups)


def _draw_dots(axes: Axes, groups: _Groups, colours: canvas.Colours, scale: float = 1.0) -> None:
    """Groups of dots from the top down; values and differences stand in columns at the right."""
    tones = {"better": "good", "worse": "bad", "equal": "muted", "": "muted"}

    def beside(y: float, text: str, offset: float, tone: str, size: float = 10) -> None:
        canvas.write_beside(
            axes, y, text, offset=offset * scale, colour=colours[tone], size=size * scale
        )

    canvas.rows_of_names(axes, colours)
    names: dict[float, str] = {}
    heads: list[int] = []
    ends: list[float] = []
    beside(0, "accuracy", 58, "muted", 9)
    if any(dot.cell.difference for _, dots in groups for dot in dots):
        beside(0, "change", 104, "muted", 9)
    y = 0.0
    for label, dots in groups:
        heads.append(len(names))
        names[y] = label
        if dots[0].place == 0 and len(dots) > 1:
            axes.vlines(
                100 * dots[0].measure.value, y + 0.5, y + len(dots) + 0.5, zorder=1, linewidth=1,
                color=colours["series-0"], linestyle=canvas.DOTTED,
            )  # fmt: skip
        for dot in dots:
            y += 1
            names[y] = canvas.short(dot.name, 24)
            value, colour = dot.measure.value, canvas.series_colour(dot.place, colours)
            low, high = dot.measure.interval or (value, value)
            ends += [value, low, high]
            axes.hlines(y, 100 * low, 100 * high, color=colour, linewidth=2.2, alpha=0.45)
            axes.plot(100 * value, y, canvas.marker(dot.place), color=colour, ms=7, clip_on=False)
            beside(y, dot.cell.text, 58, "ink")
            beside(y, dot.cell.difference, 104, tones[dot.cell.verdict])
        y += 1.7
    axes.set_yticks(list(names), list(names.values()), parse_math=False, fontsize=10 * scale)
    axes.tick_params(axis="x", labelsize=9.5 * scale)
    for head in heads:
        axes.get_yticklabels()[head].set_fontweight("bold")
    left = math.floor((min(ends) - 0.01) * 20) / 20
    right = math.ceil((max(ends) + 0.01) * 20) / 20
    axes.set(ylim=(y - 1, -0.6), xlim=(100 * max(0.0, left), 100 * min(1.0, right) + 0.5))
    canvas.in_percent(axes.xaxis)


def _thinned(steps: Sequence[float], values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Means over up to `_MOST_POINTS` stretches of steps, of what is finite in each."""
    finite = [(float(s), float(v)) for s, v in zip(steps, values, strict=True) if math.isfinite(v)]
    width = math.ceil(len(finite) / _MOST_POINTS) or 1
    stretches = [finite[start : start + width] for start in range(0, len(finite), width)]
    return (
        [sum(s for s, _ in stretch) / len(stretch) for stretch in stretches],
        [sum(v for _, v in stretch) / len(stretch) for stretch in stretches],
    )
