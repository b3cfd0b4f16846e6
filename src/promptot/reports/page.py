"""The frame of every page: one file of HTML, no script, no network, light and dark, print."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING, Any

from promptot.reports.tables import cells, format_value, printable
from promptot.reports.theme import DARK, LIGHT, SERIES

if TYPE_CHECKING:
    from jinja2 import Environment


def render_page(template: str, **values: Any) -> str:
    """A page as HTML (UTF-8): its texts are escaped, and its policy forbids it to load anything.

    Args:
        template: name of a template that extends `page.html.j2`.
        values: what it shows; the frame needs `title`, `headline` and `subtitle`.
    """
    return (
        _templates()
        .get_template(template)
        .render(light=LIGHT, dark=DARK, colours=SERIES, cells=cells, **values)
    )


@cache
def _templates() -> Environment:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("promptot.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_clean,
    )
    environment.filters["share"] = lambda value: format_value(value, "share")
    environment.filters["breakable"] = breakable
    return environment


def breakable(text: str) -> Any:
    """A label, which may be long: its lines may end between settings, and between their words.

    Example:
        >>> str(breakable("ot[optim.lr=0.1]"))
        'ot[<wbr>optim.<wbr>lr=0.1]'
    """
    from markupsafe import Markup, escape

    return Markup(re.sub(r"[,\[]|\.(?=[a-z])", r"\g<0><wbr>", str(escape(printable(text)))))


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


def _clean(value: object) -> object:
    """Clean every text the template prints; our own markup passes as it is."""
    return printable(value) if isinstance(value, str) and not hasattr(value, "__html__") else value
