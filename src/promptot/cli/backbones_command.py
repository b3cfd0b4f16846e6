"""`promptot backbones`: which frozen models there are, and whether one is read rightly."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from promptot.cli.console import Stages, command, console_for, plain, progress_bar, write_result
from promptot.cli.options import Json


class Purpose(StrEnum):
    """What a backbone is for."""

    start = "start"
    small = "small"
    photographs = "photographs"
    papers = "papers"
    languages = "languages"


backbones = typer.Typer(
    invoke_without_command=True,
    help="List the frozen models, or check that one is read as its own library reads it.",
    epilog="Example: promptot backbones --search openai --max-params 200",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@backbones.callback()
def catalogue(
    context: typer.Context,
    search: Annotated[
        str, typer.Option("--search", "-s", help="Words in name or licence: 'openai', 'dfn'.")
    ] = "",
    purpose: Annotated[Purpose | None, typer.Option("--for", help="What it shall be for.")] = None,
    max_parameters: Annotated[
        float | None, typer.Option("--max-params", min=0, help="Millions of parameters at most.")
    ] = None,
    max_download: Annotated[
        float | None, typer.Option("--max-download", min=0, help="Gigabytes to download at most.")
    ] = None,
    supported: Annotated[
        bool, typer.Option("--supported", help="Only those that can be adapted.")
    ] = False,
    all_: Annotated[bool, typer.Option("--all", help="All that are known.")] = False,
    json_path: Json = None,
) -> None:
    """List the frozen models, or check that one is read as its own library reads it.

    Without options: those that are recommended, and how names are written.
    """
    if context.invoked_subcommand is not None:
        return
    from promptot.backbones.by_name import SOURCES
    from promptot.backbones.catalogue import read_catalogue, used_sources
    from promptot.backbones.loaders.bundled_clip import list_bundled
    from promptot.cli.backbone_tables import catalogue_table
    from promptot.cli.result_tables import source_list

    console = console_for(json_path)
    known = read_catalogue()
    sized = max_parameters is not None or max_download is not None
    filtered = bool(search) or supported or all_ or sized
    if filtered or purpose is not None:
        entries = known.select(
            search=search,
            purpose=None if purpose is None else purpose.value,
            max_parameters=None if max_parameters is None else 1e6 * max_parameters,
            max_download=None if max_download is None else 1e9 * max_download,
            supported=supported,
            twins=all_,
        )
    else:
        entries = known.recommended()
    if entries:
        console.print(catalogue_table(entries, known, by_purpose=not filtered))
    else:
        console.print("None is like that.")
    if not (filtered or purpose is not None):
        console.print(source_list(SOURCES.values()))
        console.print(f"\nBundled: {', '.join(f'bundled:{name}' for name in list_bundled())}")
        console.print(
            f"{len(known.entries)} are known: {command('backbones', '--all')}. Whether one is read "
            f"rightly: {command('backbones', 'check', 'NAME')}."
        )
    patterns = {name: {"pattern": s.pattern, "summary": s.summary} for name, s in SOURCES.items()}
    result = {
        "sources": patterns,
        "bundled": list_bundled(),
        "backbones": [entry.as_json() for entry in entries],
        "facts": used_sources(entries, known),
    }
    write_result(result, json_path)


@backbones.command(epilog="Example: promptot backbones check open_clip:ViT-B-16/openai")
def check(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As --backbone takes it; it is downloaded.")
    ],
    diagram: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CLIP.png of OpenAI's repository: compare with the probabilities in its README, "
            "for its ViT-B/32.",
        ),
    ] = None,
    json_path: Json = None,
) -> None:
    """Compare a backbone with its own library's model, on built-in pictures and sentences.

    Exit code 1 if they differ.
    """
    from promptot.backbones.checks.compare import check_backbone
    from promptot.cli.backbone_tables import comparison_table, settings_table

    console = console_for(json_path)
    with progress_bar() as bar:
        report = check_backbone(name, diagram, progress=Stages(bar))
    console.print(settings_table(report))
    console.print(comparison_table(report))
    if report.equal:
        verdict = f"[green]Equal:[/] promptot computes what {plain(report.library)} computes."
    else:
        verdict = f"[bold red]Different:[/] {plain('; '.join(report.differences))}."
    console.print(f"{verdict} {report.seconds:.0f} s.", soft_wrap=True)
    write_result(report.as_json(), json_path)
    if not report.equal:
        raise typer.Exit(1)
