"""Figures of a benchmark: base against novel, accuracy against shots and λ, differences."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from promptot.reports.canvas import (
    DASHES,
    MARKERS,
    STAND_INS,
    new_figure,
    plain_axes,
    short,
    to_svg,
)
from promptot.reports.tables import format_difference
from promptot.reports.theme import SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_SHAPES = {
    "o": '<circle cx="6" cy="6" r="4.6"/>',
    "D": '<path d="M6 .6 11.4 6 6 11.4.6 6z"/>',
    "s": '<path d="M1.8 1.8h8.4v8.4H1.8z"/>',
    "^": '<path d="M6 1 11 10.6H1z"/>',
    "v": '<path d="M6 11 1 1.4H11z"/>',
    "P": '<path d="M4 1H8V4H11V8H8V11H4V8H1V4H4z"/>',
    "X": '<path d="M3 .8 6 3.7 9 .8 11.2 3 8.3 6 11.2 9 9 11.2 6 8.3 3 11.2.8 9 3.7 6 .8 3z"/>',
}


@dataclass(frozen=True)
class Dot:
    """A method in a plane of two shares, with their standard deviations (NaN: unknown)."""

    place: int
    name: str
    x: float
    y: float
    x_sd: float = math.nan
    y_sd: float = math.nan


@dataclass(frozen=True)
class Line:
    """A series of shares over a number such as K or λ, with standard deviations."""

    place: int
    name: str
    x: Sequence[float]
    y: Sequence[float]
    sd: Sequence[float]


@dataclass(frozen=True)
class Gap:
    """A difference with its interval, shares."""

    place: int
    name: str
    value: float
    low: float
    high: float


def plane_figure(dots: Sequence[Dot]) -> str:
    """Base against novel accuracy; on each contour the harmonic mean is the same.

    Raises:
        ValueError: there are no dots.

    Example:
        >>> svg = plane_figure([Dot(0, "zero-shot", 0.69, 0.74), Dot(1, "ivlp", 0.84, 0.71)])
        >>> svg[:4], "HM 7" in svg
        ('<svg', True)
    """
    import numpy as np

    if not dots:
        raise ValueError("there is nothing to draw")
    left, right = _range([(100 * dot.x, _bar(dot.x_sd)) for dot in dots])
    bottom, top = _range([(100 * dot.y, _bar(dot.y_sd)) for dot in dots])
    with new_figure(4.9, 4.2) as figure:
        axes = figure.add_subplot()
        plain_axes(axes, STAND_INS)
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
            axes.plot(xs[inside], ys[inside], color=STAND_INS["line"], linewidth=0.9, zorder=0)
            place = int(np.flatnonzero(inside)[-1])
            axes.annotate(
                f"HM {level:g}", (xs[place], ys[place]), (-2, 2), textcoords="offset points",
                ha="right", va="bottom", fontsize=7.5, color=STAND_INS["muted"],
            )  # fmt: skip
        for dot in dots:
            colour = STAND_INS[f"series-{dot.place % SERIES}"]
            axes.errorbar(
                100 * dot.x, 100 * dot.y, xerr=_bar(dot.x_sd), yerr=_bar(dot.y_sd),
                fmt=MARKERS[dot.place % len(MARKERS)], color=colour, ms=7, linewidth=1, zorder=3,
                clip_on=False,  # or a marker at 100 % would be cut in half
            )  # fmt: skip
        axes.set_xlabel("base, %", color=STAND_INS["muted"])
        axes.set_ylabel("novel, %", color=STAND_INS["muted"])
        story = "; ".join(f"{d.name} {100 * d.x:.1f} and {100 * d.y:.1f} %" for d in dots)
        return to_svg(figure, f"Base and novel accuracy of each method: {story}.")


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
        >>> svg = lines_figure("HM", "λ", [Line(1, "ot", [0, 1, 10], [0.6, 0.7, 0.65], [0.01] * 3)])
        >>> "λ" in svg
        True
    """
    if not lines:
        raise ValueError("there is nothing to draw")
    ticks = sorted({x for line in lines for x in line.x})
    smallest = min((x for x in ticks if x > 0), default=1.0)
    with new_figure(4.2, 3.0) as figure:
        axes = figure.add_subplot()
        plain_axes(axes, STAND_INS, title)
        if level is not None:
            axes.axhline(
                100 * level, color=STAND_INS["series-0"], linewidth=1, linestyle=(0, (2, 2))
            )
        for line in lines:
            axes.errorbar(
                line.x, [100 * y for y in line.y], yerr=[_bar(sd) for sd in line.sd],
                color=STAND_INS[f"series-{line.place % SERIES}"], linewidth=1.6, elinewidth=0.9,
                linestyle=DASHES[line.place % len(DASHES)], ms=6,
                marker=MARKERS[line.place % len(MARKERS)],
            )  # fmt: skip
        axes.set_xscale("symlog", base=2, linthresh=smallest)
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
        span = max(ticks) * 1.15
        axes.set_xlim((-0.3 * smallest if ticks[0] == 0 else smallest / 1.2), span or 1.0)
        axes.set_xlabel(label, color=STAND_INS["muted"])
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g} %")
        story = "; ".join(
            f"{line.name}: "
            + ", ".join(f"{100 * y:.1f} % at {x:g}" for x, y in zip(line.x, line.y, strict=True))
            for line in lines
        )
        return to_svg(figure, f"{title} over {label}: {story}.")


def gaps_figure(title: str, control: str, gaps: Sequence[Gap]) -> str:
    """Differences to the control with their intervals, in percentage points.

    Raises:
        ValueError: there are no differences.

    Example:
        >>> "+1.2" in gaps_figure("HM", "pointwise", [Gap(1, "ot", 0.012, -0.003, 0.027)])
        True
    """
    if not gaps:
        raise ValueError("there is nothing to draw")
    with new_figure(4.9, 0.8 + 0.26 * len(gaps)) as figure:
        axes = figure.add_subplot()
        plain_axes(axes, STAND_INS, title)
        axes.grid(visible=False, axis="y")
        axes.grid(visible=True, axis="x", color=STAND_INS["line"], linewidth=0.7)
        axes.axvline(0, color=STAND_INS["series-0"], linewidth=1.2)
        for y, gap in enumerate(gaps):
            colour = STAND_INS[f"series-{gap.place % SERIES}"]
            axes.hlines(y, 100 * gap.low, 100 * gap.high, color=colour, linewidth=2.2, alpha=0.5)
            axes.plot(100 * gap.value, y, MARKERS[gap.place % len(MARKERS)], color=colour, ms=7)
            _beside(axes, y, format_difference(gap.value, "share"))
        names = [short(gap.name, 30) for gap in gaps]
        axes.set_yticks(range(len(gaps)), names, parse_math=False)
        axes.tick_params(axis="y", length=0, labelcolor=STAND_INS["ink"])
        axes.set_ylim(len(gaps) - 0.5, -0.5)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(
            f"points above {short(control, 30)}", color=STAND_INS["muted"], parse_math=False
        )
        story = "; ".join(
            f"{g.name} {100 * g.value:+.1f} ({100 * g.low:+.1f} to {100 * g.high:+.1f})"
            for g in gaps
        )
        return to_svg(figure, f"{title}, points above {control}: {story}.")


def legend_point(place: int) -> str:
    """The marker that stands for the method at `place`, as a small SVG."""
    shape = _SHAPES[MARKERS[place % len(MARKERS)]]
    return (
        '<svg class="mark" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" '
        f'fill="var(--series-{place % SERIES})">{shape}</svg>'
    )


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
    import json

    kind = {"objective": "preservation", "vocabulary": "comparison"}[section]
    families: dict[str, list[tuple[float, str]]] = {}
    free: dict[str, str] = {}
    bases: dict[str, str] = {}
    constant: dict[str, bool] = {}
    for label, recipe in methods.items():
        own = recipe.get(section)
        if own is None:
            continue
        rest = {key: value for key, value in recipe.items() if key != section}
        base = json.dumps(rest, sort_keys=True)
        if own[kind] == "none":
            free.setdefault(base, label)
            continue
        term = {key: value for key, value in own.items() if key != "strength"}
        family = base + json.dumps(term, sort_keys=True)
        bases[family] = base
        constant[family] = own.get("control", "constant") == "constant"
        families.setdefault(family, []).append((float(own["strength"]), label))
    found = {}
    for family, members in families.items():
        if bases[family] in free and constant[family]:
            members.append((0.0, free[bases[family]]))
        if len({strength for strength, _ in members}) < 2:
            continue
        found[_without_strength(members[0][1], section)] = sorted(members)
    return found


def _without_strength(label: str, section: str) -> str:
    name, bracket, rest = label.partition("[")
    own = [text for text in rest[:-1].split(",") if not text.startswith(f"{section}.strength=")]
    return f"{name}[{','.join(own)}]" if bracket and own else name


def _beside(axes: Axes, y: float, text: str) -> None:
    axes.annotate(
        text, (1, y), (38, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points",
        ha="right", va="center_baseline", color=STAND_INS["ink"],
    )  # fmt: skip


def _bar(sd: float) -> float:
    """Half an error bar in percentage points; nothing where the deviation is unknown."""
    return 0.0 if math.isnan(sd) else 100 * sd


def _harmonic(x: float, y: float) -> float:
    return 2 * x * y / (x + y) if x + y > 0 else 0.0


def _range(values: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Room around some percentages and their deviations, at least four points wide."""
    low, high = min(v - sd for v, sd in values), max(v + sd for v, sd in values)
    room = max(2.0, 0.1 * (high - low))
    return max(0.0, low - room), min(100.0, high + room)
