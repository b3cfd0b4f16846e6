"""`promptot report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, in_stages, plain, with_backbone


class ReportOptions(common.Options):
    """What `promptot report` takes."""

    run: common.RunFolder
    data: Annotated[
        Path | None,
        typer.Argument(
            help="A folder of class folders to test on; the run's own test images if not given.",
            metavar="[DIR]",
        ),
    ] = None
    out: Annotated[
        Path | None, "--out", "-o", "The HTML file; report.html in RUN if not given."
    ] = None
    backbone: common.AdapterBackbone = None
    computing: common.Computing


def report(options: ReportOptions, screen: Screen) -> None:
    """Write the page of a run again, from its own test images or from others."""
    from promptot.runs.run import report as write_page

    settings = options.keywords("run", "data")
    page = with_backbone(in_stages(write_page), options.run, options.data, **settings)
    screen.say(f"Report: [bold]{plain(page)}[/]")
    screen.result({"report": str(page)})
