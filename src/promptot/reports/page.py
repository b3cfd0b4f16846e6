"""One self-contained HTML page: no script, no network, readable on a phone and in print."""

from __future__ import annotations

import base64
import io
import math
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from promptot.files.writing import write_text
from promptot.reports import detail_figures, figures
from promptot.reports.details import Details
from promptot.reports.page_values import ExampleImage, History, PlanPicture, ReportData, ResultTable
from promptot.reports.tables import cells, format_difference, format_value, printable
from promptot.reports.theme import DARK, LIGHT, SERIES

if TYPE_CHECKING:
    from jinja2 import Template
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
    """The page as HTML (UTF-8): whatever `data` leaves out is left out.

    Every text in `data` is escaped; a policy in the page forbids it to load anything.

    Example:
        >>> page = render_report(ReportData(title="Birds", headline="It <learned>."))
        >>> "<h1>Birds</h1>" in page, "It &lt;learned&gt;." in page
        (True, True)
    """
    places = _places(data)
    return page_template("report.html.j2").render(
        data=data,
        light=LIGHT,
        dark=DARK,
        colours=SERIES,
        places=places,
        marks={name: safe(figures.legend_mark(place)) for name, place in places.items()},
        cells=cells,
        dots=_results_figure(data.results),
        classes=sorted(data.details.classes, key=lambda found: found.change),
        difference=lambda gap: format_difference(gap, "share"),
        confusions=_confusion_figure(data.details),
        calibrations=[
            safe(detail_figures.reliability_figure(found, places.get(found.name, 0)))
            for found in data.details.calibrations
        ],
        curves=_curves(data.histories, places),
        examples=[(example, safe(thumbnail(example.image))) for example in data.examples],
        is_right=_is_right,
        plans=[(plan, safe(figures.plan_figure(plan)), explain_plan(plan)) for plan in data.plans],
        most_pairs=figures.MOST_PAIRS,
        plan_steps=[text for text in map(explain_steps, data.histories) if text],
        settings=_settings(data.recipes),
    )


def page_template(name: str) -> Template:
    """A template whose every text is escaped and cleaned."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("promptot.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=clean,
    )
    environment.filters["share"] = lambda value: format_value(value, "share")
    environment.filters["setting"] = format_setting
    return environment.get_template(name)


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


def format_setting(value: object) -> str:
    """A setting or a version as a reader writes it.

    Example:
        >>> format_setting(0.0005), format_setting(None), format_setting(True)
        ('0.0005', '–', 'yes')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


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
    tables = [table for table in (data.results, data.retention) if table is not None]
    names = [row.name for table in tables for row in table.rows]
    names += [found.name for found in data.details.calibrations]
    names += [history.name for history in data.histories]
    names += [answer.model for example in data.examples for answer in example.answers]
    return {name: place for place, name in enumerate(dict.fromkeys(names))}


def _confusion_figure(details: Details) -> str | None:
    picture = details.picture
    if picture is None or not 1 < len(picture.labels) <= detail_figures.MOST_CLASSES:
        return None
    return safe(detail_figures.confusion_figure(picture))


def _results_figure(table: ResultTable | None) -> str | None:
    shares = [c.key for c in table.columns if c.unit == "share"] if table else []
    if table is None or not any(row.measure(key) for row in table.rows for key in shares):
        return None
    return safe(figures.results_figure(table))


def _curves(histories: Sequence[History], places: Mapping[str, int]) -> list[str]:
    """A panel for every quantity that was measured at all, the known ones first."""
    measured = {
        key
        for history in histories
        for key, values in history.series.items()
        if any(map(math.isfinite, values))
    }
    known = [key for key in figures.PANELS if key in measured]
    others = sorted(measured - set(known))
    return [safe(figures.curves_figure(histories, key, places)) for key in known + others]


def _settings(recipes: Mapping[str, Mapping[str, object]]) -> list[tuple[str, list[str], bool]]:
    """(setting, its value in each recipe, do they differ), in the order they are first met."""
    keys = dict.fromkeys(key for recipe in recipes.values() for key in recipe)
    lines = []
    for key in keys:
        values = [format_setting(recipe.get(key)) for recipe in recipes.values()]
        lines.append((key, values, len(set(values)) > 1))
    return lines


def _is_right(example: ExampleImage, guesses: Sequence[tuple[str, float]]) -> bool:
    return bool(guesses) and guesses[0][0] == example.label


def safe(markup: str) -> Any:
    """Mark our own markup as not to be escaped again."""
    from markupsafe import Markup

    return Markup(markup)


def clean(value: object) -> object:
    """Clean every text the template prints; our own markup passes as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
