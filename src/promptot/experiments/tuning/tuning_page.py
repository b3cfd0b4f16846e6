"""The page of a tuning."""

from __future__ import annotations

import os
import shlex
from collections.abc import Sequence

from promptot.evaluation.retention import MOSTLY_WRONG
from promptot.experiments.tuning.search import describe_settings
from promptot.experiments.tuning.trade_off_picture import trade_off_figure, write_pictures
from promptot.experiments.tuning.trial_points import Point
from promptot.experiments.tuning.tuning_result import Tuning
from promptot.files.writing import write_text
from promptot.reports.page import page_template, safe
from promptot.reports.tables import format_difference, format_interval, format_value
from promptot.reports.theme import DARK, LIGHT, SERIES

FEW_IMAGES = 50
"""Validation images below which the page says that points are hard to tell apart."""


def write_tuning_page(
    tuning: Tuning,
    page: str | os.PathLike[str],
    pictures: Sequence[str | os.PathLike[str]],
) -> None:
    """Write the page and the picture on its own, each atomically.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    write_text(page, render_tuning(tuning))
    write_pictures(tuning, _title(tuning), pictures)


def render_tuning(tuning: Tuning) -> str:
    """The page as HTML (UTF-8); every text is escaped, and the page may not load anything."""
    best, front = tuning.points[tuning.recommended], tuning.front
    gain = format_difference(best.fit - tuning.zero_shot.fit, "share")
    labels = [describe_settings(point.settings, tuning.recipe) for point in tuning.points]
    data = {
        "title": _title(tuning),
        "headline": f"Recommended: {labels[tuning.recommended]}. "
        f"{format_value(best.fit, 'share')} right ({gain} points against zero-shot), "
        f"{format_value(best.retention, 'share')} retention.",
        "subtitle": f"{len(labels)} settings in {format_value(tuning.seconds, 'seconds')}, each "
        f"tested on {tuning.validation} validation images. Retention: {tuning.retention}. "
        "No test image was read.",
        "points": [
            {"number": i + 1, "label": label, "on_front": i in front, **_figures(tuning.points[i])}
            for i, label in enumerate(labels)
        ],
        "zero_shot": _figures(tuning.zero_shot),
        "recommended": tuning.recommended + 1,
        "chosen": tuning.chosen + 1,
        "command": fit_command(tuning),
        "caveats": _caveats(tuning),
    }
    return page_template("trade_off.html.j2").render(
        data=data,
        figure=safe(trade_off_figure(tuning, labels)),
        interval=lambda ends: format_interval(ends, "share"),
        seconds=lambda value: format_value(value, "seconds"),
        light=LIGHT,
        dark=DARK,
        colours=SERIES,
    )


def _title(tuning: Tuning) -> str:
    return f"Tuning {tuning.recipe.name} on {tuning.name}"


def _figures(point: Point) -> dict[str, object]:
    return {name: getattr(point, name) for name in ("fit", "interval", "retention", "seconds")}


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
