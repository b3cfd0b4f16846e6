"""For the reference pages: every command and every public name, read from the code as they build.

A hook of mkdocs; `<!-- commands -->` and `<!-- public names -->` in a page are where they go.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "src"))

import typer.main

import promptot
from promptot.cli.app import app


def commands() -> dict[str, Any]:
    """Every command of the app by the words that call it, such as "data check"; hidden ones not."""

    def walk(command: Any, words: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
        if command.hidden:
            return
        if hasattr(command, "commands"):
            for word, inner in command.commands.items():
                yield from walk(inner, (*words, word))
        else:
            yield " ".join(words), command

    return dict(walk(typer.main.get_command(app), ()))


def commands_page() -> str:
    """A table of the commands, then each with its arguments and options."""
    found = commands()
    rows = [
        f"| [`promptot {words}`](#{_anchor(words)}) | {_cell(_summary(command.help or ''))} |"
        for words, command in found.items()
    ]
    parts = ["\n".join(["| command | what it does |", "|---|---|", *rows])]
    for words, command in found.items():
        parts.append("\n\n".join(_command(words, command)))
    return "\n\n".join(parts)


def public_names() -> dict[str, Any]:
    """Every name of `promptot.__all__` that has a docstring of its own, and what it is."""
    found = {name: getattr(promptot, name) for name in promptot.__all__}
    return {name: thing for name, thing in found.items() if not isinstance(thing, str)}


def names_page() -> str:
    """A table of the public names, then a line each that mkdocstrings turns into its docstring."""
    places = {
        name: f"{thing.__module__}.{thing.__qualname__}" for name, thing in public_names().items()
    }
    rows = [
        f"| [`promptot.{name}`](#{place}) | {_cell(_summary(inspect.getdoc(thing) or ''))} |"
        for (name, place), thing in zip(places.items(), public_names().values(), strict=True)
    ]
    lines = [
        f"::: {place}\n    options:\n      heading: promptot.{name}\n      toc_label: {name}\n"
        "      inherited_members: [export, push_to_hub]\n"
        for name, place in places.items()
    ]
    return "\n".join(["| name | |", "|---|---|", *rows, "", *lines])


PARTS: dict[str, Callable[[], str]] = {
    "<!-- commands -->": commands_page,
    "<!-- public names -->": names_page,
}


def on_page_markdown(markdown: str, **kwargs: Any) -> str:
    """What mkdocs calls with the text of each page."""
    for mark, make in PARTS.items():
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def _command(words: str, command: Any) -> Iterator[str]:
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p not in arguments and not p.hidden]
    usage = [str(p.metavar or p.name.upper()) for p in arguments]
    yield f"## promptot {words} {{ #{_anchor(words)} }}"
    yield f"    promptot {' '.join([words, *usage, '[OPTIONS]'])}"
    yield _text(inspect.cleandoc(command.help or ""))
    context = command.make_context(f"promptot {words}", [], resilient_parsing=True)
    records = [(p.get_help_record(context), p) for p in (*arguments, *options)]
    rows = [
        f"| {_code(p.metavar or record[0] if p in arguments else record[0])} | {_cell(record[1])} |"
        for record, p in records
        if record is not None and "--help" not in p.opts
    ]
    yield "\n".join(["| argument or option | |", "|---|---|", *rows])
    if command.epilog:
        example = command.epilog.removeprefix("Example: ")
        yield f"Example: `{example}`"


def _anchor(words: str) -> str:
    return f"promptot-{words.replace(' ', '-')}"


def _summary(text: str) -> str:
    """Its first paragraph in a line."""
    return inspect.cleandoc(text).split("\n\n")[0].replace("\n", " ")


def _code(text: str) -> str:
    return f"`{text}`"  # a bar within it divides no cells


def _cell(text: str) -> str:
    return _text(text).replace("|", "\\|").replace("\n", " ")


def _text(text: str) -> str:
    """Help as Markdown: what stands between backticks stays, angle brackets are no tags."""
    pieces = text.replace("\\[", "[").split("`")
    pieces[::2] = [piece.replace("<", "&lt;") for piece in pieces[::2]]
    return "`".join(pieces)
