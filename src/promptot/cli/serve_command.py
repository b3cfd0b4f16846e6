"""`promptot serve`: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.cli import common_options as common
from promptot.cli.console import errors, plain, with_backbone


class ServeOptions(common.Options):
    """What `promptot serve` takes."""

    run: Annotated[str, typer.Argument(help="A run folder, or hf-hub:user/name.", metavar="RUN")]
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765
    host: Annotated[str, "Address to listen at; other than loopback lets others in."] = "127.0.0.1"
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A host name that the page answers to, beside this machine's own; repeatable.",
        ),
    ] = None
    flags: Annotated[Path | None, "CSV file for flagged mistakes; RUN/flags.csv if not given."] = (
        None
    )
    open: Annotated[bool, "Open it in the browser."] = False
    backbone: common.AdapterBackbone = None
    device: common.Device = "auto"


def serve(options: ServeOptions) -> None:
    """Show a page on this machine where the run and the frozen model answer side by side."""
    from promptot.serving.hosts import is_loopback
    from promptot.serving.server import serve as serve_run

    if not is_loopback(options.host):
        errors.say(
            f"[yellow]Warning:[/] at {plain(options.host)} everybody who can reach this machine "
            "can use the page and add to the flags; there is no password."
        )

    def ready(address: str) -> None:
        errors.say(f"[bold]{plain(address)}[/]  (Ctrl-C stops)")
        if options.open:
            import webbrowser

            webbrowser.open(address)

    with_backbone(serve_run, **options.keywords("open", on_ready=ready))
    errors.print("Stopped.")
