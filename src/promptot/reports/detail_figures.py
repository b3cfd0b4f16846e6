"""Confusions and reliability diagrams, plain values in, SVG out."""

from __future__ import annotations

import numpy as np

from promptot.reports.canvas import STAND_INS, new_figure, plain_axes, to_svg
from promptot.reports.details import Calibration, ConfusionPicture
from promptot.reports.heat import draw_heat
from promptot.reports.tables import format_value
from promptot.reports.theme import SERIES

MOST_CLASSES = 32
_WRITTEN_CLASSES = 14


def confusion_figure(picture: ConfusionPicture) -> str:
    """Right classes (rows) and answers (columns): each cell is a share of its row's images.

    Up to 14 classes have the counts written in.

    Example:
        >>> svg = confusion_figure(ConfusionPicture([[3, 1], [0, 4]], ["apple", "pear"]))
        >>> "answer" in svg and "apple" in svg
        True
    """
    size = len(picture.labels)
    totals = [max(1, sum(row)) for row in picture.counts]
    shares = [
        [count / total for count in row] for row, total in zip(picture.counts, totals, strict=True)
    ]

    def write(i: int, j: int) -> str:
        return str(picture.counts[i][j] or "")

    side = 2.6 + 0.2 * min(size, 14)
    with new_figure(side + 0.4, side) as figure:
        axes = figure.add_subplot()
        draw_heat(axes, shares, picture.labels, write if size <= _WRITTEN_CLASSES else None)
        axes.set_xlabel("answer of the adapted model", color=STAND_INS["muted"])
        axes.set_ylabel("right class", color=STAND_INS["muted"])
        right = sum(picture.counts[i][i] for i in range(size))
        total = sum(map(sum, picture.counts))
        return to_svg(
            figure,
            f"Answers of the adapted model for {total} images of {size} classes; {right} lie on "
            "the diagonal and are right.",
        )


def reliability_figure(calibration: Calibration, place: int) -> str:
    """Accuracy over confidence in equal bins; the diagonal is perfect, the bars below count images.

    Args:
        calibration: one model's.
        place: of the model, which decides its colour.
    """
    found = calibration.reliability
    width = found.edges[1] - found.edges[0]
    colour = STAND_INS[f"series-{place % SERIES}"]
    with new_figure(3.7, 3.7) as figure:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
        error = format_value(found.error, "share")
        plain_axes(upper, STAND_INS, f"{calibration.name}: error {error}")
        plain_axes(lower, STAND_INS)
        middles = (found.edges[:-1] + found.edges[1:]) / 2
        filled = found.counts > 0
        upper.plot([0, 1], [0, 1], color=STAND_INS["muted"], linewidth=1, linestyle=(0, (4, 2)))
        upper.bar(middles[filled], found.accuracy[filled], width * 0.92, color=colour, alpha=0.35)
        upper.plot(found.confidence[filled], found.accuracy[filled], "o", color=colour, ms=5)
        upper.set(xlim=(0, 1), ylim=(0, 1.03))
        upper.set_ylabel("accuracy", color=STAND_INS["muted"])
        lower.bar(middles, found.counts, width * 0.92, color=colour)
        lower.set_xlabel("confidence", color=STAND_INS["muted"])
        lower.set_ylabel("images", color=STAND_INS["muted"])
        lower.locator_params(axis="y", nbins=2, integer=True)
        for axes in (upper, lower):
            axes.set_xticks(np.linspace(0, 1, 6), [f"{100 * x:g} %" for x in np.linspace(0, 1, 6)])
        upper.set_yticks(np.linspace(0, 1, 6), [f"{100 * y:g} %" for y in np.linspace(0, 1, 6)])
        upper.tick_params(labelbottom=False)
        story = "; ".join(
            f"{int(count)} images at {100 * confidence:.0f} % confidence are right in "
            f"{100 * right:.0f} %"
            for count, confidence, right in zip(
                found.counts, found.confidence, found.accuracy, strict=True
            )
            if count > 0
        )
        return to_svg(
            figure,
            f"Reliability of {calibration.name}, expected calibration error {error}: {story}.",
        )
