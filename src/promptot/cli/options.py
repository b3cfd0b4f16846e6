"""Options that several command modules take, and reading their values."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.errors import PromptotError


def _json_place(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"'{path}' is a folder; give a file, or '-'.")
    return path


Json = Annotated[
    Path | None,
    typer.Option(
        "--json",
        metavar="PATH",
        callback=_json_place,
        help="Also write the result as JSON ('-': to standard output, the rest to standard error).",
    ),
]
AdapterBackbone = Annotated[
    str | None,
    typer.Option("--backbone", "-b", help="Where the adapter belongs, unless its own name for it."),
]


def by_commas(text: str) -> list[str]:
    """The parts of a list in one argument, blanks removed."""
    return [part.strip() for part in text.split(",") if part.strip()]


def split_names(text: str) -> list[str]:
    """Class names in one argument.

    Raises:
        PromptotError: one is empty.
    """
    names = [name.strip() for name in text.split(",")]
    if not all(names):
        raise PromptotError(
            f"--classes '{text}' holds an empty name.",
            fix='Put one comma between two names, as in --classes "cat,red panda".',
        )
    return names


def decimals(option: str, text: str) -> list[float]:
    """Numbers in one argument.

    Raises:
        PromptotError: one is no number.
    """
    try:
        return [float(part) for part in by_commas(text)]
    except ValueError:
        raise PromptotError(
            f"{option} '{text}' are not numbers.", fix=f"Write {option} 1,0.5."
        ) from None
