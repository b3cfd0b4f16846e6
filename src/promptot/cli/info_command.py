"""`promptot info`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen


class InfoOptions(common.Options):
    """What `promptot info` takes."""

    run: Annotated[
        Path | None, typer.Argument(help="A run folder; without it, this machine.", metavar="[RUN]")
    ] = None


def info(options: InfoOptions, screen: Screen) -> None:
    """Show what a run learned and from what, or the versions and devices of this machine."""
    from promptot.cli.result_tables import card_tables, pairs

    if options.run is None:
        machine = _machine()
        screen.print(pairs(machine))
        screen.result(machine)
        return
    from promptot.runs.adapter import load_adapter, warn_of_activation
    from promptot.runs.hub import adapter_folder

    card, prompts = load_adapter(adapter_folder(options.run))
    warn_of_activation(card)
    parameters = 0 if prompts is None else sum(p.numel() for p in prompts.parameters())
    screen.print(card_tables(card, parameters))
    screen.result(card.model_dump(mode="json"))


def _machine() -> dict[str, Any]:
    import torch

    from promptot.backbones.library_versions import versions

    return {
        **versions(),
        "cuda devices": torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
        "cpu threads": torch.get_num_threads(),
    }
