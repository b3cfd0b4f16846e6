"""`promptot merge`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, command, plain


class MergeOptions(common.Options):
    """What `promptot merge` takes."""

    runs: Annotated[list[Path], typer.Argument(help="Two runs or more.", metavar="RUN...")]
    out: Annotated[Path, "--out", "-o", "Folder for the merged run."]
    weights: Annotated[
        str | None, "One number for each run, by commas; all alike if not given."
    ] = None
    overwrite: common.Overwrite = False


def merge(options: MergeOptions, screen: Screen) -> None:
    """Average what several runs learned into one."""
    from promptot.runs.merging import merge as merge_runs

    shares = None if options.weights is None else common.decimals("--weights", options.weights)
    merged = merge_runs(options.runs, options.out, shares, overwrite=options.overwrite)
    weighted = zip(options.runs, merged.weights, strict=True)
    parts = ", ".join(f"{plain(run)} × {share:.3g}" for run, share in weighted)
    screen.say(f"Merged {parts} into [bold]{plain(merged.folder)}[/].")
    if merged.apart > merged.APART:
        screen.say(
            f"[yellow]Note:[/] the runs' tokens are {merged.apart:.1f} times as far apart as they "
            "are long, as from different starts; test the average before using it."
        )
    screen.say(f"Next: {command('evaluate', merged.folder, 'DIR')}")
    screen.result(merged.as_json())
