"""Draw docs/images/shared_prefix.svg: which text positions are computed, plainly and by us."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from xml.sax.saxutils import escape

from promptot.files.writing import write_text

WIDTH, LEFT = 900, 40
CELL, ROW, GAP = 46, 26, 6
HEADING = 16  # font size
SHARED, OWN, WASTE, INK, PALE = "#2f6db3", "#d9772b", "#d5d9de", "#1d2733", "#5c6773"
LENGTH = 77
PREFIX = ("SOS", "ctx 1", "ctx 2", "ctx 3", "ctx 4")
NAMES = (
    ("cat", ".", "EOS"),
    ("hot", "dog", ".", "EOS"),
    ("great", "white", "shark", ".", "EOS"),
)


class Canvas:
    """Collects SVG elements."""

    def __init__(self) -> None:
        self.parts: list[str] = []

    def box(
        self, x: float, y: float, width: float, label: str, fill: str, ink: str = "#fff"
    ) -> None:
        self.parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{width:.1f}" height="{ROW}" rx="4" '
            f'fill="{fill}"/>'
        )
        self.text(x + width / 2, y + ROW / 2 + 4, label, 11, ink, "middle")

    def text(
        self, x: float, y: float, label: str, size: int, ink: str = INK, anchor: str = "start"
    ) -> None:
        weight = 600 if size >= HEADING else 400
        self.parts.append(
            f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" fill="{ink}" '
            f'text-anchor="{anchor}" font-weight="{weight}">{escape(label)}</text>'
        )

    def arrow(self, x1: float, y1: float, x2: float, y2: float) -> None:
        middle = (x1 + x2) / 2
        self.parts.append(
            f'<path d="M{x1:.1f} {y1:.1f} C{middle:.1f} {y1:.1f} {middle:.1f} {y2:.1f} {x2:.1f} '
            f'{y2:.1f}" fill="none" stroke="{SHARED}" stroke-width="1.6" marker-end="url(#tip)"/>'
        )

    def svg(self, width: int, height: int) -> str:
        tip = (
            '<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" '
            'markerHeight="7" orient="auto-start-reverse"><path d="M0 0 L8 4 L0 8 z" '
            f'fill="{SHARED}"/></marker></defs>'
        )
        label = "Which text positions are computed, the plain way and with a shared prefix"
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
            f'width="{width}" height="{height}" font-family="system-ui, sans-serif" role="img" '
            f'aria-label="{label}"><rect width="{width}" height="{height}" fill="#fff"/>{tip}'
            + "\n".join(self.parts)
            + "</svg>\n"
        )


def row(canvas: Canvas, x: float, y: float, labels: Sequence[str], fill: str) -> float:
    """Tokens side by side; gives the x behind them."""
    for label in labels:
        canvas.box(x, y, CELL, label, fill)
        x += CELL + GAP
    return x


def draw() -> str:
    canvas = Canvas()
    canvas.text(LEFT, 34, "The plain way: 77 positions for every class, in every block", HEADING)
    y = 52.0
    for name in NAMES:
        x = row(canvas, row(canvas, LEFT, y, PREFIX, SHARED), y, name, OWN)
        padding = f"{LENGTH - len(PREFIX) - len(name)} positions of padding, never read"
        canvas.box(x, y, WIDTH - LEFT - x, padding, WASTE, PALE)
        y += ROW + GAP

    y += 34
    title = "Ours: the prefix once for all classes, then only each class's own tokens"
    canvas.text(LEFT, y, title, HEADING)
    y += 18
    middle = y + ROW + GAP
    end = row(canvas, LEFT, middle, PREFIX, SHARED)
    canvas.text(LEFT, middle + ROW + 20, "every class attends to its keys and values,", 11, PALE)
    canvas.text(LEFT, middle + ROW + 34, "block by block", 11, PALE)
    for name in NAMES:
        canvas.arrow(end, middle + ROW / 2, end + 84, y + ROW / 2)
        x = row(canvas, end + 90, y, name, OWN)
        canvas.text(x + 6, y + ROW / 2 + 4, "→ feature of the class", 11, PALE)
        y += ROW + GAP

    y += 34
    canvas.text(LEFT, y, "As the matrix products see them: one row of tokens, no padding", 13, PALE)
    y += 12
    x = float(LEFT)
    for name in NAMES:
        x = row(canvas, x, y, name, OWN)

    y += ROW + 34
    x = float(LEFT)
    for label, fill in (
        ("shared by all classes: start token, learned context", SHARED),
        ("belongs to one class", OWN),
        ("wasted", WASTE),
    ):
        canvas.box(x, y - ROW / 2 - 4, 14, "", fill)
        canvas.text(x + 22, y, label, 12)
        x += 50 + 6.2 * len(label)
    return canvas.svg(WIDTH, int(y + 28))


def main() -> None:
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("path", type=Path, nargs="?", default=Path("docs/images/shared_prefix.svg"))
    write_text(made.parse_args().path, draw())


if __name__ == "__main__":
    main()
