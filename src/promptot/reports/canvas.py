"""What every figure is drawn on: plain axes in stand-in colours, and an SVG fit for the page.

The SVGs are meant to stand in the page: their text is text, and their colours are the page's CSS
variables, so that one figure is right on a light and on a dark background and in print.
"""

from __future__ import annotations

import io
import re
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

from promptot.reports.tables import printable
from promptot.reports.theme import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Colours = Mapping[str, str]

# Colours no one would choose, which `to_svg` replaces by the page's variables.
STAND_INS = {name: f"#0a0b{number:02x}" for number, name in enumerate(LIGHT)}
_VARIABLES = {stand_in: f"var(--{name}, {LIGHT[name]})" for name, stand_in in STAND_INS.items()}
DASHES: tuple[Any, ...] = (
    (0, (1.4, 1.4)),
    "-",
    (0, (5, 1.6)),
    (0, (6, 1.5, 1.4, 1.5)),
)
MARKERS = "oDs^vPX"


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


def to_svg(figure: Figure, description: str) -> str:
    """Matplotlib's SVG made fit to stand in a page: own ids, CSS variables, no outer links."""
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
