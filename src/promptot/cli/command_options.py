"""A command's options are the fields of a frozen dataclass (`Options`); here they become typer's.

A field is typer's own argument or option, as in `Annotated[int, typer.Option(min=1)]`; or texts for
an option's flags and help, as in `Annotated[Path, "--out", "-o", "Folder for the run."]`, where the
flag is the field's name if none is given; or a group of several, which is such a dataclass itself.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_origin, get_type_hints

import typer
from rich.markup import escape

from promptot.cli.console import Screen


def _json_place(path: Path | None) -> Path | None:
    if path is not None and path.is_dir():
        raise typer.BadParameter(f"'{path}' is a folder; give a file, or '-'.")
    return path


JSON = inspect.Parameter(
    "json_path",
    inspect.Parameter.KEYWORD_ONLY,
    default=None,
    annotation=Annotated[
        Path | None,
        typer.Option(
            "--json",
            metavar="PATH",
            callback=_json_place,
            help="Also write the result as JSON ('-': to standard output, the rest to standard "
            "error).",
        ),
    ],
)
"""The last option of every command that has a result."""


def add_command(app: typer.Typer, run: Callable[..., None], example: str) -> None:
    """Add a command to an application; its name and help are the function's.

    Args:
        run: see `typer_function`.
        example: a command line for the end of the help, without "promptot".
    """
    app.command(epilog=f"Example: promptot {example}")(typer_function(run))


def typer_function(run: Callable[..., None]) -> Callable[..., None]:
    """A command as typer takes it: a function with a parameter for each option.

    Args:
        run: takes a dataclass of options; and a `Screen`, if it has a result for --json.
    """
    kind, *screen = (hint for name, hint in get_type_hints(run).items() if name != "return")

    def call(json_path: Path | None = None, **values: Any) -> None:
        run(_filled(kind, values), *(Screen(json_path) for _ in screen))

    parameters = [*_parameters(kind), *(JSON for _ in screen)]
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    call.__name__, call.__doc__ = run.__name__, run.__doc__
    return call


def _typed_fields(kind: Any) -> Iterator[tuple[Field[Any], Any]]:
    hints = get_type_hints(kind, include_extras=True)
    return ((field, hints[field.name]) for field in fields(kind))


def _parameters(kind: Any) -> Iterator[inspect.Parameter]:
    for field, hint in _typed_fields(kind):
        if is_dataclass(hint):
            yield from _parameters(hint)
        else:
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            yield JSON.replace(name=field.name, default=default, annotation=_option(field, hint))


def _option(field: Field[Any], hint: Any) -> Any:
    """The hint of a field, with texts made typer's option."""
    if get_origin(hint) is not Annotated or not isinstance(hint.__metadata__[0], str):
        return hint
    *flags, text = hint.__metadata__
    if field.default is False and not flags:  # or typer would add its opposite
        flags = [f"--{field.name.replace('_', '-')}"]
    return Annotated[hint.__origin__, typer.Option(*flags, help=escape(text))]


def _filled(kind: Any, values: Mapping[str, Any]) -> Any:
    filled = {
        field.name: _filled(hint, values) if is_dataclass(hint) else values[field.name]
        for field, hint in _typed_fields(kind)
    }
    return kind(**filled)
