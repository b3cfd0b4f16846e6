"""The picture of a tuning: fit against retention, so that people pick a point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from promptot.experiments.tuning.tuning_result import Tuning
from promptot.files.writing import atomic_write
from promptot.reports.canvas import STAND_INS, Colours, new_figure, plain_axes, to_svg
from promptot.reports.tables import format_value
from promptot.reports.theme import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def write_pictures(tuning: Tuning, title: str, paths: Sequence[str | os.PathLike[str]]) -> None:
    """Write the picture on its own, each file atomically, as SVG or whatever its name ends in.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    with new_figure(8.0, 5.6) as figure:
        figure.set_facecolor(LIGHT["card"])
        axes = figure.add_subplot()
        _draw(axes, tuning, LIGHT)
        axes.set_title(title, loc="left", weight="bold", fontsize=13, parse_math=False)
        for path in paths:
            kind = os.fspath(path).rpartition(".")[2]
            with atomic_write(path) as temporary:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)


def trade_off_figure(tuning: Tuning, labels: Sequence[str]) -> str:
    """Accuracy over retention, a numbered dot a setting; a line joins the Pareto front.

    Args:
        tuning: what was tried.
        labels: the settings of its points in words.
    """
    with new_figure(5.6, 4.2) as figure:
        _draw(figure.add_subplot(), tuning, STAND_INS)
        story = "; ".join(
            f"{number}, {label}: {format_value(point.fit, 'share')} right and "
            f"{format_value(point.retention, 'share')} retention"
            for number, (point, label) in enumerate(zip(tuning.points, labels, strict=True), 1)
        )
        return to_svg(figure, f"Accuracy over retention of every setting: {story}.")


def _draw(axes: Axes, tuning: Tuning, colours: Colours) -> None:
    plain_axes(axes, colours)
    axes.grid(visible=True, color=colours["line"], linewidth=0.7)
    everything = [*tuning.points, tuning.zero_shot]
    xs = [100 * point.retention for point in everything]
    ys = [100 * point.fit for point in everything]
    axes.set_xlim(*_room(xs))
    axes.set_ylim(*_room(ys))
    zero = tuning.zero_shot
    for line in (axes.axhline(100 * zero.fit), axes.axvline(100 * zero.retention)):
        line.set(color=colours["series-0"], linewidth=0.9, linestyle=(0, (2, 2)), zorder=1)
    axes.plot(
        100 * zero.retention, 100 * zero.fit, "s", color=colours["series-0"], ms=8, zorder=3,
        clip_on=False,
    )  # fmt: skip
    axes.annotate(
        "zero-shot", (100 * zero.retention, 100 * zero.fit), (-7, -13), ha="right", fontsize=9,
        textcoords="offset points", color=colours["muted"],
    )  # fmt: skip
    front = [tuning.points[place] for place in tuning.front]  # by ascending retention
    axes.plot(
        [100 * p.retention for p in front], [100 * p.fit for p in front],
        color=colours["series-2"], linewidth=1.5, zorder=2,
    )  # fmt: skip
    placed: dict[tuple[float, float], list[str]] = {}
    for place, point in enumerate(tuning.points):
        on_front = place in tuning.front
        tone = "series-2" if on_front else "muted"
        face = colours[tone] if on_front else "none"
        axes.plot(
            100 * point.retention, 100 * point.fit, "o", color=colours[tone], ms=7, zorder=4,
            markerfacecolor=face, clip_on=False,
        )  # fmt: skip
        at = (round(100 * point.retention, 1), round(100 * point.fit, 1))
        placed.setdefault(at, []).append(str(place + 1))
        if place == tuning.recommended:
            axes.plot(
                100 * point.retention, 100 * point.fit, "o", ms=15, markerfacecolor="none",
                markeredgewidth=2, color=colours["series-1"], zorder=5, clip_on=False,
            )  # fmt: skip
            axes.annotate(
                "recommended", (100 * point.retention, 100 * point.fit), (-12, -15), ha="right",
                textcoords="offset points", color=colours["series-1"], fontsize=9, weight="bold",
            )  # fmt: skip
    for (x, y), numbers in placed.items():  # settings that came out alike share a place
        axes.annotate(
            ", ".join(numbers), (x, y), (0, 9), ha="center", fontsize=9,
            textcoords="offset points", color=colours["ink"],
        )  # fmt: skip
    axes.set_xlabel(f"retention: {tuning.retention}", color=colours["muted"], parse_math=False)
    axes.set_ylabel("fit: accuracy on validation images", color=colours["muted"])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")


def _room(values: Sequence[float]) -> tuple[float, float]:
    """Room around some percentages, at least six points wide."""
    low, high = min(values), max(values)
    room = max(3.0, 0.12 * (high - low))
    return max(0.0, low - room), min(104.0, high + room)
