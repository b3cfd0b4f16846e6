"""The page of a tuning."""

from __future__ import annotations

import shlex

from promptot.evaluation.retention import MOSTLY_WRONG
from promptot.experiments.tuning.search import describe_settings
from promptot.experiments.tuning.trade_off_page import TradeOff, TradeOffPoint
from promptot.experiments.tuning.trial_points import Point
from promptot.experiments.tuning.tuning_result import Tuning
from promptot.reports.tables import format_difference, format_value

FEW_IMAGES = 50
"""Validation images below which the page says that points are hard to tell apart."""


def trade_off(found: Tuning) -> TradeOff:
    """What the page shows of a tuning."""
    front = set(found.front)
    best = found.points[found.recommended]
    zero = found.zero_shot
    gain = format_difference(best.fit - zero.fit, "share")

    def shown(place: int, point: Point, label: str) -> TradeOffPoint:
        return TradeOffPoint(
            place + 1,
            label,
            point.fit,
            point.interval,
            point.retention,
            point.seconds,
            place in front,
        )

    return TradeOff(
        title=f"Tuning {found.recipe.name} on {found.name}",
        headline=(
            f"Recommended: {describe_settings(best.settings, found.recipe)}. "
            f"{format_value(best.fit, 'share')} right ({gain} points against zero-shot), "
            f"{format_value(best.retention, 'share')} retention."
        ),
        subtitle=(
            f"{len(found.points)} settings in {format_value(found.seconds, 'seconds')}, each "
            f"tested on {found.validation} validation images. Retention: {found.retention}. "
            "No test image was read."
        ),
        points=[
            shown(i, point, describe_settings(point.settings, found.recipe))
            for i, point in enumerate(found.points)
        ],
        zero_shot=shown(-1, zero, "zero-shot"),
        recommended=found.recommended + 1,
        chosen=found.chosen + 1,
        retention=found.retention,
        command=fit_command(found),
        caveats=_caveats(found),
    )


def fit_command(found: Tuning) -> str:
    """The command that trains the chosen point, quoted for the shell."""
    out = found.folder.parent / f"{found.folder.name}-run"
    return shlex.join(
        ["promptot", "fit", *found.arguments, "--out", str(out), "--recipe", str(found.recipe_file)]
    )


def _caveats(found: Tuning) -> list[str]:
    caveats = []
    if found.zero_shot.interval[1] < MOSTLY_WRONG:
        caveats.append(
            f"The frozen model is right on only {format_value(found.zero_shot.fit, 'share')} of "
            "the validation images: what is kept of it is mostly wrong, so retention says little "
            "here. Go by the fit."
        )
    if found.validation < FEW_IMAGES:
        caveats.append(
            f"{found.validation} validation images: points whose intervals overlap can't be told "
            "apart, and the order may differ with another draw."
        )
    if not found.finished:
        caveats.append("The time was up before everything was tried; a larger budget goes on.")
    low, _ = found.points[found.recommended].interval
    if low <= found.zero_shot.fit:
        caveats.append(
            "On these images the recommended point is not clearly better than zero-shot."
        )
    return caveats
