"""The page of a tuning: fit against retention, so that people pick a point."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from promptot.files.writing import atomic_write, write_text
from promptot.reports.canvas import STAND_INS, Colours, new_figure, plain_axes, to_svg
from promptot.reports.page import page_template, safe
from promptot.reports.tables import format_interval, format_value
from promptot.reports.theme import DARK, LIGHT, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True)
class TradeOffPoint:
    """One setting that was tried.

    Args:
        number: from 1.
        label: the setting in words.
        fit: accuracy on the validation images, 0..1, and its interval.
        retention: a share in 0..1.
        seconds: that it took.
        on_front: whether no other point beats it.
    """

    number: int
    label: str
    fit: float
    interval: tuple[float, float]
    retention: float
    seconds: float
    on_front: bool


@dataclass(frozen=True)
class TradeOff:
    """What the page shows.

    Args:
        title, headline, subtitle: at its top.
        points: what was tried, in order; at least one.
        zero_shot: the frozen model, its number is 0.
        recommended, chosen: numbers of points.
        retention: what retention is, in a few words.
        command: how to train the chosen point.
        caveats: what the figures do not say.
    """

    title: str
    headline: str
    subtitle: str
    points: Sequence[TradeOffPoint]
    zero_shot: TradeOffPoint
    recommended: int
    chosen: int
    retention: str
    command: str
    caveats: Sequence[str] = ()


def write_trade_off(
    data: TradeOff,
    page: str | os.PathLike[str],
    svg: str | os.PathLike[str],
    png: str | os.PathLike[str],
) -> None:
    """Write the page and the picture on its own, each atomically.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    write_text(page, render_trade_off(data))
    with new_figure(8.0, 5.6) as figure:
        figure.set_facecolor(LIGHT["card"])
        axes = figure.add_subplot()
        _draw(axes, data, LIGHT)
        axes.set_title(data.title, loc="left", weight="bold", fontsize=13, parse_math=False)
        for path, kind in ((svg, "svg"), (png, "png")):
            with atomic_write(path) as temporary:
                metadata = {"Date": None} if kind == "svg" else None
                figure.savefig(temporary, format=kind, dpi=200, metadata=metadata)


def render_trade_off(data: TradeOff) -> str:
    """The page as HTML (UTF-8); every text is escaped, and the page may not load anything."""
    return page_template("trade_off.html.j2").render(
        data=data,
        figure=safe(trade_off_figure(data)),
        interval=lambda ends: format_interval(ends, "share"),
        seconds=lambda value: format_value(value, "seconds"),
        light=LIGHT,
        dark=DARK,
        colours=SERIES,
    )


def trade_off_figure(data: TradeOff) -> str:
    """Accuracy over retention, a numbered dot a setting; a line joins the Pareto front.

    Example:
        >>> point = TradeOffPoint(1, "λ = 1", 0.8, (0.6, 0.9), 0.9, 2.0, True)
        >>> zero = TradeOffPoint(0, "", 0.7, (0.5, 0.8), 1.0, 0.0, False)
        >>> svg = trade_off_figure(TradeOff("t", "h", "s", [point], zero, 1, 1, "agreement", "c"))
        >>> "80.0 % right and 90.0 % retention" in svg
        True
    """
    with new_figure(5.6, 4.2) as figure:
        _draw(figure.add_subplot(), data, STAND_INS)
        story = "; ".join(
            f"{point.number}, {point.label}: {format_value(point.fit, 'share')} right and "
            f"{format_value(point.retention, 'share')} retention"
            for point in data.points
        )
        return to_svg(figure, f"Accuracy over retention of every setting: {story}.")


def _draw(axes: Axes, data: TradeOff, colours: Colours) -> None:
    plain_axes(axes, colours)
    axes.grid(visible=True, color=colours["line"], linewidth=0.7)
    everything = [*data.points, data.zero_shot]
    xs = [100 * point.retention for point in everything]
    ys = [100 * point.fit for point in everything]
    axes.set_xlim(*_room(xs))
    axes.set_ylim(*_room(ys))
    zero = data.zero_shot
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
    front = sorted((p for p in data.points if p.on_front), key=lambda point: point.retention)
    axes.plot(
        [100 * p.retention for p in front], [100 * p.fit for p in front],
        color=colours["series-2"], linewidth=1.5, zorder=2,
    )  # fmt: skip
    placed: dict[tuple[float, float], list[str]] = {}
    for point in data.points:
        tone = "series-2" if point.on_front else "muted"
        face = colours[tone] if point.on_front else "none"
        axes.plot(
            100 * point.retention, 100 * point.fit, "o", color=colours[tone], ms=7, zorder=4,
            markerfacecolor=face, clip_on=False,
        )  # fmt: skip
        at = (round(100 * point.retention, 1), round(100 * point.fit, 1))
        placed.setdefault(at, []).append(str(point.number))
        if point.number == data.recommended:
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
    axes.set_xlabel(f"retention: {data.retention}", color=colours["muted"], parse_math=False)
    axes.set_ylabel("fit: accuracy on validation images", color=colours["muted"])
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g} %")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")


def _room(values: Sequence[float]) -> tuple[float, float]:
    """Room around some percentages, at least six points wide."""
    low, high = min(values), max(values)
    room = max(3.0, 0.12 * (high - low))
    return max(0.0, low - room), min(104.0, high + room)
