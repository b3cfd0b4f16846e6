"""Square heat maps with named rows and columns: transport plans and confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from promptot.reports.canvas import STAND_INS, plain_axes, short

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NOTHING = 0.001  # shares below it are left white


def draw_heat(
    axes: Axes,
    shares: Sequence[Sequence[float]],
    labels: Sequence[str],
    write: Callable[[int, int], str] | None = None,
) -> None:
    """A square of cells, the darker the larger their share, with the diagonal outlined.

    Args:
        axes: to draw on.
        shares: [size][size], each in 0..1.
        labels: of rows and columns, [size].
        write: what stands in a cell, by row and column; None writes nothing.
    """
    from matplotlib.collections import PolyCollection
    from matplotlib.colors import to_rgba
    from matplotlib.patches import Rectangle

    size = len(labels)
    plain_axes(axes, STAND_INS)
    axes.grid(visible=False)
    squares: list[list[tuple[float, float]]] = []
    heat: list[Any] = []
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            if share >= _NOTHING:
                left, right, top, bottom = j - 0.5, j + 0.5, i - 0.5, i + 0.5
                squares.append([(left, top), (right, top), (right, bottom), (left, bottom)])
                heat.append(to_rgba(STAND_INS["heat"], 0.12 + 0.88 * min(share, 1.0)))
            if write is not None:
                tone = "on-heat" if share > 0.75 else "muted" if share < _NOTHING else "ink"
                axes.text(j, i, write(i, j), ha="center", va="center", color=STAND_INS[tone])
        diagonal = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, lw=1.2)
        diagonal.set_edgecolor(STAND_INS["ink"])
        axes.add_patch(diagonal)
    axes.add_collection(PolyCollection(squares, facecolors=heat, linewidths=0))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    size_of_text = 9.5 if size <= 16 else 190 / (size + 4)
    shown = [short(label) for label in labels]
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=5)
    axes.set_yticks(range(size), shown, fontsize=size_of_text, parse_math=False)
    axes.set_xticks(range(size), shown, fontsize=size_of_text, parse_math=False)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="left", rotation_mode="anchor")
    for line in (n - 0.5 for n in range(size + 1)):
        axes.axhline(line, color=STAND_INS["line"], linewidth=0.6, zorder=0)
        axes.axvline(line, color=STAND_INS["line"], linewidth=0.6, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.set_label_position("bottom")
