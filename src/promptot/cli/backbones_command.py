"""`promptot backbones`: which frozen models there are."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from promptot.cli import common_options as common
from promptot.cli.backbones_check import check
from promptot.cli.command_options import add_command, typer_function
from promptot.cli.console import Screen, command

Purpose = Literal[
    "start", "small", "photographs", "accuracy", "papers", "languages", "medicine", "biology"
]


class BackbonesOptions(common.Options):
    """What `promptot backbones` takes."""

    context: typer.Context
    search: Annotated[str, "--search", "-s", "Words in name or licence: 'openai', 'dfn'."] = ""
    purpose: Annotated[Purpose | None, "--for", "What it shall be for."] = None
    max_parameters: Annotated[
        float | None, typer.Option("--max-params", min=0, help="Millions of parameters at most.")
    ] = None
    max_download: Annotated[
        float | None, typer.Option(min=0, help="Gigabytes to download at most.")
    ] = None
    supported: Annotated[bool, "Only those that can be loaded here."] = False
    all: Annotated[bool, "All that are known."] = False


def catalogue(options: BackbonesOptions, screen: Screen) -> None:
    """List the frozen models: without options those that are recommended, and how names go."""
    if options.context.invoked_subcommand is not None:
        return
    from promptot.backbones.by_name import SOURCES
    from promptot.backbones.catalogue import read_catalogue, used_sources
    from promptot.backbones.loaders.bundled_clip import list_bundled
    from promptot.cli.backbone_tables import catalogue_table

    known = read_catalogue()
    most, largest = options.max_parameters, options.max_download
    given = {
        name for name, value in options.keywords().items() if value is not False and value != ""
    }
    filtered = bool(given - {"purpose"})
    if given:
        entries = known.select(
            search=options.search,
            purpose=options.purpose,
            max_parameters=None if most is None else 1e6 * most,
            max_download=None if largest is None else 1e9 * largest,
            supported=options.supported,
            twins=options.all,
        )
    else:
        entries = known.recommended()
    if entries:
        screen.print(catalogue_table(entries, known, by_purpose=not filtered))
    else:
        screen.print("None is like that.")
    if not given:
        _show_names(screen, len(known.entries))
    patterns = {name: {"pattern": s.pattern, "summary": s.summary} for name, s in SOURCES.items()}
    screen.result(
        {
            "sources": patterns,
            "bundled": list_bundled(),
            "backbones": [entry.as_json() for entry in entries],
            "facts": used_sources(entries, known),
            "verifications": known.verifications,
        }
    )


def _show_names(screen: Screen, entries: int) -> None:
    """How backbones are named, and how many more there are."""
    from promptot.backbones.by_name import SOURCES
    from promptot.backbones.loaders.bundled_clip import list_bundled
    from promptot.cli.result_tables import source_list

    screen.print(source_list(SOURCES.values()))
    screen.print(f"\nBundled: {', '.join(f'bundled:{name}' for name in list_bundled())}")
    screen.print(
        f"{entries} are known: {command('backbones', '--all')}. Whether one is read rightly: "
        f"{command('backbones', 'check', 'NAME')}."
    )


backbones = typer.Typer(
    invoke_without_command=True,
    help="List the frozen models, or check that one is read as its own library reads it.",
    epilog="Example: promptot backbones --search openai --max-params 200",
    context_settings={"help_option_names": ["-h", "--help"]},
)
backbones.callback()(typer_function(catalogue))
add_command(backbones, check, "backbones check open_clip:ViT-B-16/openai")
