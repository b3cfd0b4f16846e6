"""`promptot backbones check`: whether a frozen model is read rightly."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, in_stages, plain

if TYPE_CHECKING:
    from promptot.backbones.checks.compare import CheckReport


class CheckBackboneOptions(common.Options):
    """What `promptot backbones check` takes."""

    name: Annotated[
        str, typer.Argument(metavar="NAME", help="As --backbone takes it; it is downloaded.")
    ]
    diagram: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="CLIP.png of OpenAI's repository: compare with the probabilities in its README, "
            "for its ViT-B/32.",
        ),
    ] = None


def check(options: CheckBackboneOptions, screen: Screen) -> None:
    """Compare a backbone with its own library's model, on built-in pictures and sentences.

    Exit code 1 if they differ.
    """
    from promptot.backbones.checks.compare import check_backbone

    show_check(in_stages(check_backbone)(options.name, options.diagram), screen)


def show_check(report: CheckReport, screen: Screen) -> None:
    """Print a comparison.

    Raises:
        typer.Exit: with code 1, something differs.
    """
    from promptot.cli.backbone_tables import comparison_table, settings_table

    screen.print(settings_table(report))
    screen.print(comparison_table(report))
    if report.equal:
        verdict = f"[green]Equal:[/] promptot computes what {plain(report.library)} computes."
    else:
        verdict = f"[bold red]Different:[/] {plain('; '.join(report.differences))}."
    screen.say(f"{verdict} {report.seconds:.0f} s.")
    screen.result(report.as_json())
    if not report.equal:
        raise typer.Exit(1)
