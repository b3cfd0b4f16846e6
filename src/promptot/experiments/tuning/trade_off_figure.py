"""The trade-off of a tuning: accuracy over retention, a numbered dot a setting."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from promptot.experiments.tuning.search import describe_settings
from promptot.experiments.tuning.trial_points import Point
from promptot.experiments.tuning.tuning_result import Tuning
from promptot.files.writing import atomic_write
from promptot.reports import canvas
from promptot.reports.tables import format_value
from promptot.reports.theme import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def trade_off_figure(tuning: Tuning) -> str:
    """The figure as an SVG for a page; a line joins the Pareto front."""
    with canvas.page_axes(5.6, 4.2) as axes:
        _draw(axes, tuning, canvas.STAND_INS)
        story = "; ".join(
            f"{number}, {describe_settings(point.settings, tuning.recipe)}: "
            f"{format_value(point.fit, 'share')} right and "
            f"{format_value(point.retention, 'share')} retention"
            for number, point in enumerate(tuning.points, start=1)
        )
        return canvas.to_svg(axes, f"Accuracy over retention of every setting: {story}.")


def write_trade_off(tuning: Tuning, *paths: str | os.PathLike[str]) -> None:
    """The figure on its own, as SVG or PNG by the name of the file, each written atomically.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    with canvas.new_figure(8.0, 5.6) as figure:
        figure.set_facecolor(LIGHT["card"])
        axes = figure.add_subplot()
        canvas.plain_axes(axes, LIGHT)
        _draw(axes, tuning, LIGHT)
        title = f"Tuning {tuning.recipe.name} on {tuning.name}"
        axes.set_title(title, loc="left", weight="bold", fontsize=13, parse_math=False)
        for path in map(Path, paths):
            kind = path.suffix.removeprefix(".")
            metadata = {"Date": None} if kind == "svg" else None
            with atomic_write(path) as temporary:
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)


def _draw(axes: Axes, tuning: Tuning, colours: canvas.Colours) -> None:
    axes.grid(visible=True, color=colours["line"], linewidth=0.7)
    front = set(tuning.front)
    zero = _place(tuning.zero_shot)
    places = [_place(point) for point in tuning.points]
    (left, right), (bottom, top) = (
        canvas.room_around(values, least=3.0, share=0.12)
        for values in zip(zero, *places, strict=True)
    )
    axes.set(xlim=(left, min(104.0, right)), ylim=(bottom, min(104.0, top)))
    for line in (axes.axhline(zero[1]), axes.axvline(zero[0])):
        line.set(color=colours["series-0"], linewidth=0.9, linestyle=canvas.DOTTED, zorder=1)

    def say(text: str, at: tuple[float, float], by: tuple[int, int], **style: Any) -> None:
        axes.annotate(text, at, by, fontsize=9, textcoords="offset points", **style)

    axes.plot(*zero, "s", color=colours["series-0"], ms=8, zorder=3, clip_on=False)
    say("zero-shot", zero, (-7, -13), ha="right", color=colours["muted"])
    line_of_front = sorted((places[i] for i in front), key=lambda place: place[0])
    axes.plot(*zip(*line_of_front, strict=True), color=colours["series-2"], linewidth=1.5, zorder=2)
    numbers: dict[tuple[float, float], list[str]] = {}
    for i, place in enumerate(places):
        colour = colours["series-2" if i in front else "muted"]
        face = colour if i in front else "none"
        axes.plot(*place, "o", color=colour, ms=7, zorder=4, markerfacecolor=face, clip_on=False)
        numbers.setdefault((round(place[0], 1), round(place[1], 1)), []).append(str(i + 1))
        if i == tuning.recommended:
            colour = colours["series-1"]
            axes.plot(
                *place, "o", ms=15, markerfacecolor="none", markeredgewidth=2, color=colour,
                zorder=5, clip_on=False,
            )  # fmt: skip
            say("recommended", place, (-12, -15), ha="right", color=colour, weight="bold")
    for place, alike in numbers.items():  # settings that came out alike share a place
        say(", ".join(alike), place, (0, 9), ha="center", color=colours["ink"])
    canvas.name_axes(
        axes, f"retention: {tuning.retention}", "fit: accuracy on validation images", colours
    )
    canvas.in_percent(axes.xaxis, axes.yaxis)


def _place(point: Point) -> tuple[float, float]:
    """Retention and fit in percent."""
    return 100 * point.retention, 100 * point.fit
