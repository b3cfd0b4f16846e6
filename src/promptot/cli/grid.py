"""The one look of the tables that the commands print."""

from __future__ import annotations

from typing import Any

from rich import box
from rich.table import Column, Table


def grid(*columns: Column | str, caption: str | None = None, **more: Any) -> Table:
    """A table with a line below its head, and a caption at the left."""
    table = Table(*columns, box=box.SIMPLE_HEAD, pad_edge=False, caption=caption, **more)
    table.caption_justify = "left"
    return table


def listing(*columns: Column, **more: Any) -> Table:
    """A table without head and lines."""
    return Table(
        *columns, box=None, show_header=False, pad_edge=False, title_justify="left", **more
    )


def numbers(*labels: str, no_wrap: bool = False) -> list[Column]:
    """Columns of numbers, at the right."""
    return [Column(label, justify="right", no_wrap=no_wrap) for label in labels]


def folded(label: str = "", **more: Any) -> Column:
    """A column whose texts may be long: they are broken anywhere, and nothing is cut off."""
    return Column(label, overflow="fold", **more)
