"""`promptot report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.cli.console import (
    Stages,
    console_for,
    plain,
    progress_bar,
    with_backbone,
    write_result,
)
from promptot.cli.options import AdapterBackbone, Json
from promptot.cli.run_options import Device, Precision, PrecisionName, Workers


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: promptot report runs/photos more-photos/")(report)


def report(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of class folders to test on; the run's own test images if not given.",
            metavar="[DIR]",
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", help="The HTML file; report.html in RUN if not given."),
    ] = None,
    backbone: AdapterBackbone = None,
    device: Device = "auto",
    precision: PrecisionName = Precision.fp32,
    workers: Workers = 0,
    json_path: Json = None,
) -> None:
    """Write the page of a run again, from its own test images or from others."""
    from promptot.runs.commands import report as write_page

    console = console_for(json_path)

    def write(chosen: str | None) -> Path:
        with progress_bar() as bar:
            return write_page(
                run,
                folder,
                out=out,
                backbone=chosen,
                device=device,
                precision=precision.value,
                workers=workers,
                progress=Stages(bar),
            )

    page = with_backbone(write, backbone)
    console.print(f"Report: [bold]{plain(page)}[/]", soft_wrap=True)
    write_result({"report": str(page)}, json_path)
