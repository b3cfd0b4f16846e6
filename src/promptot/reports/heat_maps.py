"""Square heat maps with named rows and columns: transport plans and confusions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from promptot.reports import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from promptot.reports.page_values import ConfusionPicture, PlanPicture

MOST_PAIRS = MOST_CLASSES = 32
_WRITTEN_PAIRS = 10
_WRITTEN_CLASSES = 14
_NOTHING = 0.001  # shares below it are left white


def plan_figure(picture: PlanPicture) -> str:
    """A transport plan as a heat map: each cell is the share of its row's mass.

    A plan of up to 10 pairs has the shares written in; of more than 32 pairs the first 32 are
    drawn.

    Example:
        >>> from promptot.reports.page_values import PlanPicture
        >>> svg = plan_figure(PlanPicture([[0.5, 0.0], [0.1, 0.4]], ["apple", "pear"]))
        >>> "0.80" in svg and "apple" in svg
        True
    """
    values = picture.values
    size = min(len(values), MOST_PAIRS)
    shares = [
        [mass / total if (total := sum(row)) > 0 else 0.0 for mass in row[:size]]
        for row in values[:size]
    ]

    def write(i: int, j: int) -> str:
        return f"{shares[i][j]:.2f}" if shares[i][j] >= _NOTHING else "0"

    with canvas.page_axes(5.0, 4.6) as axes:
        draw_heat(axes, shares, picture.labels[:size], write if size <= _WRITTEN_PAIRS else None)
        canvas.name_axes(axes, "pair of the frozen model", "pair of the adapted model")
        return canvas.to_svg(
            axes,
            f"Transport plan of {len(values)} pairs, outlined on the diagonal; share of the mass "
            f"off the diagonal {picture.off_diagonal_mass:.3f}.",
        )


def confusion_figure(picture: ConfusionPicture) -> str:
    """Right classes (rows) and answers (columns): each cell is a share of its row's images.

    Up to 14 classes have the counts written in.

    Example:
        >>> from promptot.reports.page_values import ConfusionPicture
        >>> svg = confusion_figure(ConfusionPicture([[3, 1], [0, 4]], ["apple", "pear"]))
        >>> "answer" in svg and "apple" in svg
        True
    """
    counts, size = picture.counts, len(picture.labels)
    shares = [[count / max(1, sum(row)) for count in row] for row in counts]

    def write(i: int, j: int) -> str:
        return str(counts[i][j] or "")

    side = 2.6 + 0.2 * min(size, 14)
    with canvas.page_axes(side + 0.4, side) as axes:
        draw_heat(axes, shares, picture.labels, write if size <= _WRITTEN_CLASSES else None)
        canvas.name_axes(axes, "answer of the adapted model", "right class")
        right = sum(counts[i][i] for i in range(size))
        return canvas.to_svg(
            axes,
            f"Answers of the adapted model for {sum(map(sum, counts))} images of {size} classes; "
            f"{right} lie on the diagonal and are right.",
        )


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
    axes.grid(visible=False)
    squares: list[list[tuple[float, float]]] = []
    heat: list[Any] = []
    for i, row in enumerate(shares):
        for j, share in enumerate(row):
            if share >= _NOTHING:
                left, right, top, bottom = j - 0.5, j + 0.5, i - 0.5, i + 0.5
                squares.append([(left, top), (right, top), (right, bottom), (left, bottom)])
                heat.append(to_rgba(canvas.STAND_INS["heat"], 0.12 + 0.88 * min(share, 1.0)))
            if write is not None:
                tone = "on-heat" if share > 0.75 else "muted" if share < _NOTHING else "ink"
                axes.text(j, i, write(i, j), ha="center", va="center", color=canvas.STAND_INS[tone])
        diagonal = Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, lw=1.2)
        diagonal.set_edgecolor(canvas.STAND_INS["ink"])
        axes.add_patch(diagonal)
    axes.add_collection(PolyCollection(squares, facecolors=heat, linewidths=0))
    axes.set(xlim=(-0.5, size - 0.5), ylim=(size - 0.5, -0.5), aspect="equal")
    axes.xaxis.tick_top()
    axes.tick_params(length=0, pad=5)
    size_of_text = 9.5 if size <= 16 else 190 / (size + 4)
    for write_ticks in (axes.set_yticks, axes.set_xticks):
        write_ticks(range(size), map(canvas.short, labels), fontsize=size_of_text, parse_math=False)
    for label in axes.get_xticklabels():
        label.set(rotation=45, ha="left", rotation_mode="anchor")
    for line in (n - 0.5 for n in range(size + 1)):
        axes.axhline(line, color=canvas.STAND_INS["line"], linewidth=0.6, zorder=0)
        axes.axvline(line, color=canvas.STAND_INS["line"], linewidth=0.6, zorder=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.xaxis.set_label_position("bottom")
