"""`promptot serve`: the page."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from promptot.cli.console import errors, plain, with_backbone
from promptot.cli.options import AdapterBackbone


def register(app: typer.Typer) -> None:
    """Add the command of this module."""
    app.command(epilog="Example: promptot serve runs/photos")(serve)


def serve(
    run: Annotated[str, typer.Argument(help="A run folder, or hf-hub:user/name.", metavar="RUN")],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen at; other than loopback lets others in.")
    ] = "127.0.0.1",
    allow_host: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-host",
            metavar="NAME",
            help="A host name that the page answers to, beside this machine's own; repeatable.",
        ),
    ] = None,
    flags: Annotated[
        Path | None, typer.Option(help="CSV file for flagged mistakes; RUN/flags.csv if not given.")
    ] = None,
    open_: Annotated[bool, typer.Option("--open", help="Open it in the browser.")] = False,
    backbone: AdapterBackbone = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<index> or mps.")] = "auto",
) -> None:
    """Show a page on this machine where the run and the frozen model answer side by side."""
    from promptot.serving.hosts import is_loopback
    from promptot.serving.server import serve as serve_run

    if not is_loopback(host):
        errors.print(
            f"[yellow]Warning:[/] at {plain(host)} everybody who can reach this machine can use "
            "the page and add to the flags; there is no password.",
            soft_wrap=True,
        )

    def ready(address: str) -> None:
        errors.print(f"[bold]{plain(address)}[/]  (Ctrl-C stops)", soft_wrap=True)
        if open_:
            import webbrowser

            webbrowser.open(address)

    with_backbone(
        lambda chosen: serve_run(
            run,
            host=host,
            port=port,
            allowed_hosts=tuple(allow_host or ()),
            flags=flags,
            backbone=chosen,
            device=device,
            on_ready=ready,
        ),
        backbone,
    )
    errors.print("Stopped.")
