"""Figures of a benchmark: base against novel, accuracy against shots and λ, differences."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptot.reports import canvas
from promptot.reports.tables import format_difference

if TYPE_CHECKING:
    from promptot.evaluation.statistics import Difference
    from promptot.experiments.summary import Figure


@dataclass(frozen=True)
class Dot:
    """A method in a plane of two figures."""

    place: int
    name: str
    x: Figure
    y: Figure


@dataclass(frozen=True)
class Line:
    """Figures over a number such as K or λ."""

    place: int
    name: str
    x: Sequence[float]
    y: Sequence[Figure]


@dataclass(frozen=True)
class Gap:
    """A difference with its interval."""

    place: int
    name: str
    difference: Difference


def plane_figure(dots: Sequence[Dot]) -> str:
    """Base against novel accuracy; on each contour the harmonic mean is the same.

    Raises:
        ValueError: there are no dots.

    Example:
        >>> from promptot.experiments.summary import Figure
        >>> svg = plane_figure([Dot(0, "zero-shot", Figure(0.69, 0.01), Figure(0.74, 0.02))])
        >>> svg[:4], "HM 7" in svg
        ('<svg', True)
    """
    import numpy as np

    if not dots:
        raise ValueError("there is nothing to draw")
    left, right = _range([dot.x for dot in dots])
    bottom, top = _range([dot.y for dot in dots])
    with canvas.page_axes(4.9, 4.2) as axes:
        axes.grid(visible=False)
        axes.set(xlim=(left, right), ylim=(bottom, top))
        xs = np.linspace(left, right, 120)
        lowest, highest = _harmonic(left, bottom), _harmonic(right, top)
        step = next(s for s in (0.5, 1, 2, 5, 10, 20) if (highest - lowest) / s <= 8)
        for level in np.arange(math.ceil(lowest / step) * step, highest, step):
            with np.errstate(divide="ignore", invalid="ignore"):
                ys = np.where(2 * xs > level, level * xs / (2 * xs - level), np.nan)
            inside = (ys >= bottom) & (ys <= top)
            if inside.sum() < 2:
                continue
            axes.plot(
                xs[inside], ys[inside], color=canvas.STAND_INS["line"], linewidth=0.9, zorder=0
            )
            place = int(np.flatnonzero(inside)[-1])
            axes.annotate(
                f"HM {level:g}", (xs[place], ys[place]), (-2, 2), textcoords="offset points",
                ha="right", va="bottom", fontsize=7.5, color=canvas.STAND_INS["muted"],
            )  # fmt: skip
        for dot in dots:
            axes.errorbar(
                100 * dot.x.mean, 100 * dot.y.mean, xerr=_bar(dot.x), yerr=_bar(dot.y),
                fmt=canvas.marker(dot.place), color=canvas.series_colour(dot.place), ms=7,
                linewidth=1, zorder=3, clip_on=False,  # or a marker at 100 % would be cut in half
            )  # fmt: skip
        canvas.name_axes(axes, "base, %", "novel, %")
        story = "; ".join(f"{d.name} {100 * d.x.mean:.1f} and {100 * d.y.mean:.1f} %" for d in dots)
        return canvas.to_svg(axes, f"Base and novel accuracy of each method: {story}.")


def lines_figure(title: str, label: str, lines: Sequence[Line], level: float | None = None) -> str:
    """Shares over K or λ, a line a method; the axis is logarithmic, with 0 at its left.

    Args:
        title: of the figure.
        label: of the horizontal axis.
        lines: at least one point each.
        level: a share to draw as a dashed line across, such as zero-shot's.

    Raises:
        ValueError: there are no lines.

    Example:
        >>> from promptot.experiments.summary import Figure
        >>> svg = lines_figure("HM", "λ", [Line(1, "ot", [0, 1], [Figure(0.6, 0.01)] * 2)])
        >>> "λ" in svg
        True
    """
    if not lines:
        raise ValueError("there is nothing to draw")
    ticks = sorted({x for line in lines for x in line.x})
    smallest = min((x for x in ticks if x > 0), default=1.0)
    with canvas.page_axes(4.2, 3.0, title) as axes:
        if level is not None:
            axes.axhline(
                100 * level,
                color=canvas.STAND_INS["series-0"],
                linewidth=1,
                linestyle=canvas.DOTTED,
            )
        for line in lines:
            axes.errorbar(
                line.x, [100 * y.mean for y in line.y], yerr=[_bar(y) for y in line.y],
                color=canvas.series_colour(line.place), linewidth=1.6, elinewidth=0.9,
                linestyle=canvas.dash(line.place), ms=6, marker=canvas.marker(line.place),
            )  # fmt: skip
        axes.set_xscale("symlog", base=2, linthresh=smallest)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        span = max(ticks) * 1.15
        axes.set_xlim((-0.3 * smallest if ticks[0] == 0 else smallest / 1.2), span or 1.0)
        canvas.name_axes(axes, label)
        canvas.in_percent(axes.yaxis)
        story = "; ".join(f"{line.name}: {_points(line)}" for line in lines)
        return canvas.to_svg(axes, f"{title} over {label}: {story}.")


def gaps_figure(title: str, control: str, gaps: Sequence[Gap]) -> str:
    """Differences to the control with their intervals, in percentage points.

    Raises:
        ValueError: there are no differences.

    Example:
        >>> from promptot.evaluation.statistics import Difference
        >>> "+1.2" in gaps_figure("HM", "ivlp", [Gap(1, "ot", Difference(0.012, -0.003, 0.027))])
        True
    """
    if not gaps:
        raise ValueError("there is nothing to draw")
    with canvas.page_axes(4.9, 0.8 + 0.26 * len(gaps), title) as axes:
        canvas.rows_of_names(axes)
        axes.axvline(0, color=canvas.STAND_INS["series-0"], linewidth=1.2)
        for y, gap in enumerate(gaps):
            colour = canvas.series_colour(gap.place)
            value, low, high = (100 * end for end in _ends(gap))
            axes.hlines(y, low, high, color=colour, linewidth=2.2, alpha=0.5)
            axes.plot(value, y, canvas.marker(gap.place), color=colour, ms=7)
            written = format_difference(gap.difference.value, "share")
            canvas.write_beside(axes, y, written, offset=38, colour=canvas.STAND_INS["ink"])
        names = [canvas.short(gap.name, 30) for gap in gaps]
        axes.set_yticks(range(len(gaps)), names, parse_math=False)
        axes.set_ylim(len(gaps) - 0.5, -0.5)
        canvas.name_axes(axes, f"points above {canvas.short(control, 30)}")
        story = "; ".join(
            "{} {:+.1f} ({:+.1f} to {:+.1f})".format(gap.name, *(100 * end for end in _ends(gap)))
            for gap in gaps
        )
        return canvas.to_svg(axes, f"{title}, points above {control}: {story}.")


def strength_families(
    methods: Mapping[str, Mapping[str, Any]], section: str
) -> dict[str, list[tuple[float, str]]]:
    """Methods that differ in one strength alone.

    A method without the term counts as strength 0 of every family that equals it otherwise and
    whose strength is the same in every step.

    Args:
        methods: label -> recipe values, nested.
        section: "objective" or "vocabulary".

    Returns:
        family -> (strength, label), ascending, at least two each; a family is called as its first
        method without the strength.

    Example:
        >>> def recipe(kind, strength):
        ...     return {"objective": {"preservation": kind, "strength": strength}}
        >>> methods = {"ot[objective.strength=3]": recipe("ot", 3.0), "ot": recipe("ot", 10.0)}
        >>> strength_families({**methods, "ivlp": recipe("none", 10.0)}, "objective")
        {'ot': [(0.0, 'ivlp'), (3.0, 'ot[objective.strength=3]'), (10.0, 'ot')]}
    """
    kind = {"objective": "preservation", "vocabulary": "comparison"}[section]
    families: dict[tuple[str, str], list[tuple[float, str]]] = {}
    free: dict[str, str] = {}  # the first method without the term, by the rest of its recipe
    constant = set()
    for label, recipe in methods.items():
        term = dict(recipe.get(section) or {})
        if not term:
            continue
        rest = json.dumps({**recipe, section: None}, sort_keys=True)
        if term[kind] == "none":
            free.setdefault(rest, label)
            continue
        strength = float(term.pop("strength"))
        family = rest, json.dumps(term, sort_keys=True)
        families.setdefault(family, []).append((strength, label))
        if term.get("control", "constant") == "constant":
            constant.add(family)
    named = {}
    for family, members in families.items():
        if family in constant and family[0] in free:
            members.append((0.0, free[family[0]]))
        if len({strength for strength, _ in members}) > 1:
            named[_without_strength(members[0][1], section)] = sorted(members)
    return named


def _without_strength(label: str, section: str) -> str:
    name, bracket, rest = label.partition("[")
    own = [text for text in rest[:-1].split(",") if not text.startswith(f"{section}.strength=")]
    return f"{name}[{','.join(own)}]" if bracket and own else name


def _ends(gap: Gap) -> tuple[float, float, float]:
    return gap.difference.value, gap.difference.low, gap.difference.high


def _bar(figure: Figure) -> float:
    """Half an error bar in percentage points; nothing where the deviation is unknown."""
    return 0.0 if math.isnan(figure.sd) else 100 * figure.sd


def _points(line: Line) -> str:
    pairs = zip(line.x, line.y, strict=True)
    return ", ".join(f"{100 * y.mean:.1f} % at {x:g}" for x, y in pairs)


def _harmonic(x: float, y: float) -> float:
    return 2 * x * y / (x + y) if x + y > 0 else 0.0


def _range(figures: Sequence[Figure]) -> tuple[float, float]:
    """Room around some figures and their deviations, in percent, at least four points wide."""
    ends = [100 * figure.mean + sign * _bar(figure) for figure in figures for sign in (-1, 1)]
    low, high = canvas.room_around(ends, least=2.0, share=0.1)
    return low, min(100.0, high)
