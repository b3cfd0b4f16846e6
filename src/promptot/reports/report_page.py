"""The page of one run, or of several methods side by side."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from promptot.files.writing import write_text
from promptot.reports import figures, heat_maps
from promptot.reports.canvas import legend_stroke
from promptot.reports.page import format_setting, render_page
from promptot.reports.page_values import History, PlanPicture, ReportData
from promptot.reports.tables import Column, Row, Table, format_value

if TYPE_CHECKING:
    from PIL.Image import Image

THUMBNAIL = 168  # pixels; shown at half of it, so that it is sharp on a phone
_IDENTITY = 5e-4  # less mass than this off the diagonal is shown as 0.000


def write_report(data: ReportData, path: str | os.PathLike[str]) -> None:
    """Write the page to `path`, atomically.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    write_text(path, render_report(data))


def render_report(data: ReportData) -> str:
    """The page as HTML: whatever `data` leaves out is left out.

    Example:
        >>> page = render_report(ReportData(title="Birds", headline="It <learned>."))
        >>> "<h1>Birds</h1>" in page, "It &lt;learned&gt;." in page
        (True, True)
    """
    return render_page(
        "report.html.j2",
        data=data,
        title=data.title,
        headline=data.headline,
        subtitle=data.subtitle,
        places=_places(data),
        curves=_curves(data.histories),
        plan_steps=[text for text in map(explain_steps, data.histories) if text],
        explain_plan=explain_plan,
        thumbnail=thumbnail,
        figures=figures,
        heat_maps=heat_maps,
        legend_stroke=legend_stroke,
        settings=_settings(data.recipes),
        environment=_environment(data.environment),
        part_of=_part_of,
    )


def explain_plan(picture: PlanPicture) -> str:
    """A sentence on what the off-diagonal mass of this plan says.

    Example:
        >>> explain_plan(PlanPicture([[0.5, 0.0], [0.0, 0.5]], ["apple", "pear"]))[:45]
        'Off-diagonal mass 0.000: the plan is the iden'
    """
    mass = picture.off_diagonal_mass
    if mass < _IDENTITY:
        return (
            "Off-diagonal mass 0.000: the plan is the identity. Every pair was matched with "
            "itself, so in this batch transport did what a point-wise penalty does."
        )
    return (
        f"Off-diagonal mass {mass:.3f}: {format_value(mass, 'share')} of the mass links a pair to "
        "another one, so in this batch transport compared across examples, which a point-wise "
        "penalty can't."
    )


def explain_steps(history: History) -> str:
    """A sentence on how often the plan was not the identity; "" where that was not logged.

    Example:
        >>> explain_steps(History("Prompt-OT", [1, 2], {"off_diagonal_mass": [0.0, 0.0]}))
        'Prompt-OT: the plan was the identity in each of 2 logged steps.'
    """
    masses = [m for m in history.series.get("off_diagonal_mass", ()) if math.isfinite(m)]
    if not masses:
        return ""
    moved = sum(mass >= _IDENTITY for mass in masses)
    if moved == 0:
        return f"{history.name}: the plan was the identity in each of {len(masses)} logged steps."
    return (
        f"{history.name}: in {moved} of {len(masses)} logged steps the plan was not the identity; "
        f"the largest off-diagonal mass was {max(masses):.3f}."
    )


def thumbnail(image: Image) -> str:
    """A data URI with a small WebP copy of an image, transparent parts on white."""
    import PIL.Image

    flat = PIL.Image.new("RGBA", image.size, "white")
    flat.alpha_composite(image.convert("RGBA"))
    small = flat.convert("RGB")
    small.thumbnail((THUMBNAIL, THUMBNAIL))
    written = io.BytesIO()
    small.save(written, format="WEBP", quality=85, method=6)
    return f"data:image/webp;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


def _places(data: ReportData) -> dict[str, int]:
    """Method -> its place, which decides its colour: table rows first, then whoever else."""
    names = [row.name for table in (data.results, data.retention) if table for row in table.rows]
    names += [calibration.name for calibration in data.details.calibrations]
    names += [history.name for history in data.histories]
    names += [answer.model for example in data.examples for answer in example.answers]
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _part_of(table: Table, first: int, last: int | None = None) -> Table | None:
    """The table with some of its rows; None without any."""
    rows = table.rows[first:last]
    return replace(table, rows=rows) if rows else None


def _curves(histories: Sequence[History]) -> list[str]:
    """Every quantity that was measured at all, the known ones first."""
    measured = {
        key
        for history in histories
        for key, values in history.series.items()
        if any(map(math.isfinite, values))
    }
    known = [key for key in figures.PANELS if key in measured]
    return known + sorted(measured - set(known))


def _settings(recipes: Mapping[str, Mapping[str, object]]) -> Table | None:
    """The recipes side by side, strong where they differ, in the order of their settings."""
    rows = []
    for key in dict.fromkeys(key for recipe in recipes.values() for key in recipe):
        values = {name: format_setting(recipe.get(key)) for name, recipe in recipes.items()}
        rows.append(Row(key, values, "strong" if len(set(values.values())) > 1 else ""))
    columns = [Column(name, name, "text") for name in recipes]
    return Table(rows, columns, compared=False, title="Recipe", corner="Setting") if rows else None


def _environment(values: Mapping[str, object]) -> Table | None:
    lines = [(name, format_setting(value)) for name, value in values.items()]
    return Table.of([Column("value", "", "text")], lines, title="Environment") if lines else None
