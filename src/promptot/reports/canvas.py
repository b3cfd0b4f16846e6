"""What every figure is drawn on: plain axes, each method's colours and marks, SVG for the page.

The SVGs are meant to stand in the page: their text is text, and their colours are the page's CSS
variables, so that one figure is right on a light and on a dark background and in print.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast
from xml.etree import ElementTree

from promptot.reports.tables import printable
from promptot.reports.theme import LIGHT, SERIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

Colours = Mapping[str, str]

# Colours no one would choose, which `to_svg` replaces by the page's variables.
STAND_INS = {name: f"#0a0b{number:02x}" for number, name in enumerate(LIGHT)}
_VARIABLES = {stand_in: f"var(--{name}, {LIGHT[name]})" for name, stand_in in STAND_INS.items()}
DASHES: tuple[Any, ...] = ((0, (1.4, 1.4)), "-", (0, (5, 1.6)), (0, (6, 1.5, 1.4, 1.5)))
DOTTED = (0, (2, 2))
MARKERS = "oDs^vPX"
_SHAPES = {
    "o": '<circle cx="6" cy="6" r="4.6"/>',
    "D": '<path d="M6 .6 11.4 6 6 11.4.6 6z"/>',
    "s": '<path d="M1.8 1.8h8.4v8.4H1.8z"/>',
    "^": '<path d="M6 1 11 10.6H1z"/>',
    "v": '<path d="M6 11 1 1.4H11z"/>',
    "P": '<path d="M4 1H8V4H11V8H8V11H4V8H1V4H4z"/>',
    "X": '<path d="M3 .8 6 3.7 9 .8 11.2 3 8.3 6 11.2 9 9 11.2 6 8.3 3 11.2.8 9 3.7 6 .8 3z"/>',
}


def series_colour(place: int, colours: Colours = STAND_INS) -> str:
    """The colour of the method at `place`; with its dash and its marker it is the method's own."""
    return colours[f"series-{place % SERIES}"]


def dash(place: int) -> Any:
    """The line style of the method at `place`."""
    return DASHES[place % len(DASHES)]


def marker(place: int) -> str:
    """The marker of the method at `place`."""
    return MARKERS[place % len(MARKERS)]


def legend_stroke(place: int) -> str:
    """The stroke that stands for the method at `place`, as a small SVG."""
    pattern = "" if dash(place) == "-" else " ".join(f"{1.8 * n:g}" for n in dash(place)[1])
    return (
        '<svg class="mark" viewBox="0 0 28 10" width="28" height="10" aria-hidden="true">'
        f'<path d="M1 5H27" fill="none" stroke="var(--series-{place % SERIES})" '
        f'stroke-width="2.4" stroke-dasharray="{pattern or "none"}"/></svg>'
    )


def legend_point(place: int) -> str:
    """The marker that stands for the method at `place`, as a small SVG."""
    return (
        '<svg class="mark" viewBox="0 0 12 12" width="12" height="12" aria-hidden="true" '
        f'fill="var(--series-{place % SERIES})">{_SHAPES[marker(place)]}</svg>'
    )


@contextmanager
def page_axes(width: float, height: float, title: str = "") -> Iterator[Axes]:
    """Plain axes, alone in a figure of so many inches, in the colours of the page."""
    with new_figure(width, height) as figure:
        axes = figure.add_subplot()
        plain_axes(axes, STAND_INS, title)
        yield axes


def plain_axes(axes: Axes, colours: Colours, title: str = "") -> None:
    """Two spines, a faint grid, a bold title at the left."""
    axes.set_facecolor("none")
    axes.set_axisbelow(True)
    axes.grid(visible=True, axis="y", color=colours["line"], linewidth=0.7)
    axes.tick_params(colors=colours["muted"], length=3, color=colours["line"])
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_edgecolor(colours["line"])
    if title:
        axes.set_title(
            title, loc="left", color=colours["ink"], weight="bold", fontsize=11, parse_math=False
        )


def rows_of_names(axes: Axes, colours: Colours = STAND_INS) -> None:
    """Axes whose rows have names at the left: rules from the top down, no line beside the names."""
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=colours["line"], linewidth=0.7)
    axes.tick_params(axis="y", length=0, labelcolor=colours["ink"])
    axes.spines["left"].set_visible(False)


def name_axes(axes: Axes, x: str = "", y: str = "", colours: Colours = STAND_INS) -> None:
    """What the axes show, in pale words."""
    for write, text in ((axes.set_xlabel, x), (axes.set_ylabel, y)):
        if text:
            write(text, color=colours["muted"], parse_math=False)


def in_percent(*axes: Axis) -> None:
    """Ticks with the sign of percent."""
    for axis in axes:
        axis.set_major_formatter(lambda value, _: f"{value:g} %")


def write_beside(
    axes: Axes, y: float, text: str, *, offset: float, colour: str, size: float = 10
) -> None:
    """Words at the right of a row; they end `offset` points behind the axes."""
    axes.annotate(
        text, (1, y), (offset, 0), xycoords=axes.get_yaxis_transform(),
        textcoords="offset points", ha="right", va="center_baseline", color=colour, fontsize=size,
    )  # fmt: skip


def short(text: str, most: int = 20) -> str:
    """One printable line of at most `most` characters."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most - 1]}…"


@contextmanager
def new_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in inches, apart from pyplot and from the user's matplotlib settings."""
    import matplotlib
    from matplotlib.figure import Figure

    settings = {
        **matplotlib.rcParamsDefault,
        "font.family": "DejaVu Sans",
        "font.size": 10,
        "svg.fonttype": "none",
        "svg.hashsalt": "promptot",
        "figure.facecolor": "none",
    }
    settings.pop("backend", None)
    with matplotlib.rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        yield Figure(figsize=(width, height), layout="constrained")


def room_around(values: Sequence[float], least: float, share: float) -> tuple[float, float]:
    """Both ends of a range of percentages, with a share of it or at least so much at either side.

    Example:
        >>> room_around([50.0, 90.0], least=2.0, share=0.1)
        (46.0, 94.0)
    """
    low, high = min(values), max(values)
    room = max(least, share * (high - low))
    return max(0.0, low - room), high + room


def to_svg(drawn: Figure | Axes, description: str) -> str:
    """Matplotlib's SVG made fit to stand in a page: own ids, CSS variables, no outer links."""
    figure = cast("Figure", drawn.get_figure())
    written = io.BytesIO()
    figure.savefig(written, format="svg", transparent=True, metadata={"Date": None})
    root = ElementTree.fromstring(written.getvalue())
    prefix = f"f{zlib.crc32(written.getvalue()):08x}"
    for element in root.iter():
        element.tag = element.tag.partition("}")[2]
        for name in list(element.attrib):
            value = element.attrib.pop(name)
            name = name.rpartition("}")[2]
            if name == "id":
                value = f"{prefix}-{value}"
            elif name == "href":
                value = value.replace("#", f"#{prefix}-", 1)
            elif name in ("style", "clip-path"):
                value = value.replace("url(#", f"url(#{prefix}-")
                value = re.sub("#0a0b..", lambda m: _VARIABLES[m[0]], value)
            element.set(name, value)
    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in ("metadata", "style"):
                parent.remove(child)
    for name in ("width", "height", "version"):
        root.attrib.pop(name, None)
    root.set("xmlns", "http://www.w3.org/2000/svg")
    root.set("role", "img")
    root.set("aria-label", printable(description))
    root.set("stroke-linejoin", "round")
    return ElementTree.tostring(root, encoding="unicode")
