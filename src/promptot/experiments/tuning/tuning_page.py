"""The page of a tuning: fit against retention, so that people pick a point."""

from __future__ import annotations

import os
import shlex

from promptot.evaluation.retention import MOSTLY_WRONG
from promptot.experiments.tuning.search import describe_settings
from promptot.experiments.tuning.trade_off_figure import trade_off_figure, write_trade_off
from promptot.experiments.tuning.trial_points import Point
from promptot.experiments.tuning.tuning_result import Tuning
from promptot.files.writing import write_text
from promptot.reports import tables
from promptot.reports.page import render_page
from promptot.reports.tables import Column, Row, Table, format_value

FEW_IMAGES = 50
"""Validation images below which the page says that points are hard to tell apart."""
_COLUMNS = (
    Column("setting", "Setting", "text"),
    Column("fit", "Fit", better=None),
    Column("interval", "95 % interval", wide=True),
    Column("retention", "Retention", better=None),
    Column("seconds", "Time", "seconds", better=None, wide=True),
)


def write_tuning_page(
    tuning: Tuning, page: str | os.PathLike[str], *pictures: str | os.PathLike[str]
) -> None:
    """Write the page, and the picture on its own (SVG or PNG by its name), each atomically.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    write_text(page, render_tuning_page(tuning))
    write_trade_off(tuning, *pictures)


def render_tuning_page(tuning: Tuning) -> str:
    """The page as HTML."""
    best = tuning.points[tuning.recommended]
    gain = tables.format_difference(best.fit - tuning.zero_shot.fit, "share")
    return render_page(
        "tuning.html.j2",
        title=f"Tuning {tuning.recipe.name} on {tuning.name}",
        headline=f"Recommended: {describe_settings(best.settings, tuning.recipe)}. "
        f"{format_value(best.fit, 'share')} right ({gain} points against zero-shot), "
        f"{format_value(best.retention, 'share')} retention.",
        subtitle=f"{len(tuning.points)} settings in {format_value(tuning.seconds, 'seconds')}, "
        f"each tested on {tuning.validation} validation images. Retention: {tuning.retention}. "
        "No test image was read.",
        figure=trade_off_figure(tuning),
        points=points_table(tuning),
        chosen=tuning.chosen + 1,
        command=fit_command(tuning),
        notes=_caveats(tuning),
    )


def points_table(tuning: Tuning) -> Table:
    """The frozen model, and each setting that was tried."""
    front = set(tuning.front)
    zero = _point("zero-shot", tuning.zero_shot)
    rows = [Row(tables.MISSING, {**zero, "seconds": None})]
    for place, point in enumerate(tuning.points):
        values = _point(describe_settings(point.settings, tuning.recipe), point)
        if place == tuning.recommended:
            rows.append(Row(f"{place + 1} ★", values, "strong", "recommended"))
        elif place in front:
            rows.append(Row(f"{place + 1} •", values, spoken="on the front"))
        else:
            rows.append(Row(str(place + 1), values, "pale"))
    return Table(rows, _COLUMNS, compared=False, corner="Point")


def _point(setting: str, point: Point) -> dict[str, float | str | None]:
    return {
        "setting": setting,
        "fit": point.fit,
        "interval": tables.format_interval(point.interval, "share"),
        "retention": point.retention,
        "seconds": point.seconds,
    }


def fit_command(tuning: Tuning) -> str:
    """The command that trains the chosen point, quoted for the shell."""
    out = tuning.folder.parent / f"{tuning.folder.name}-run"
    return shlex.join(
        [
            "promptot",
            "fit",
            *tuning.arguments,
            "--out",
            str(out),
            "--recipe",
            str(tuning.recipe_file),
        ]
    )


def _caveats(tuning: Tuning) -> list[str]:
    caveats = []
    if tuning.zero_shot.interval[1] < MOSTLY_WRONG:
        caveats.append(
            f"The frozen model is right on only {format_value(tuning.zero_shot.fit, 'share')} of "
            "the validation images: what is kept of it is mostly wrong, so retention says little "
            "here. Go by the fit."
        )
    if tuning.validation < FEW_IMAGES:
        caveats.append(
            f"{tuning.validation} validation images: points whose intervals overlap can't be told "
            "apart, and the order may differ with another draw."
        )
    if not tuning.finished:
        caveats.append("The time was up before everything was tried; a larger budget goes on.")
    low, _ = tuning.points[tuning.recommended].interval
    if low <= tuning.zero_shot.fit:
        caveats.append(
            "On these images the recommended point is not clearly better than zero-shot."
        )
    return caveats
