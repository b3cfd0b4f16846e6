"""`promptot tune`."""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from promptot.cli.console import (
    Stages,
    console_for,
    errors,
    plain,
    progress_bar,
    show_notes,
    write_result,
)
from promptot.cli.options import Json, share
from promptot.cli.run_options import (
    BackboneName,
    Device,
    Overrides,
    Precision,
    PrecisionName,
    Seed,
    Workers,
)

if TYPE_CHECKING:
    from promptot.experiments.tuning import Point

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


class TunedClasses(StrEnum):
    """Which classes to train on."""

    all = "all"
    base = "base"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(epilog="Example: promptot tune photos/ --budget 10m --out runs/tuning")(tune)


def parse_duration(text: str) -> float:
    """Seconds, from a number with or without a unit (s, m, h).

    Raises:
        BadParameter: it is none.

    Example:
        >>> parse_duration("10m"), parse_duration("90"), parse_duration("1.5h")
        (600.0, 90.0, 5400.0)
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|m|min|h|)\s*", text, re.IGNORECASE | re.ASCII)
    if found is None or not float(found[1]) > 0:
        raise typer.BadParameter(f"'{text}' is no time; write 90s, 10m or 1h.")
    return float(found[1]) * _UNITS[found[2].lower()]


def tune(
    folder: Annotated[Path, typer.Argument(help="A folder of class folders.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for trials, recipe and page.")],
    budget: Annotated[
        str, typer.Option(help="Time for all trials together: 90s, 10m, 1h.", metavar="TIME")
    ] = "10m",
    choose: Annotated[
        int | None,
        typer.Option(min=1, help="Write the recipe of this point; the recommended if not given."),
    ] = None,
    backbone: BackboneName = "bundled:tiny",
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="Where to start; see `promptot recipes`.")
    ] = "prompt-ot",
    shots: Annotated[
        int | None, typer.Option(min=1, help="Images per class; the recipe's unless given.")
    ] = None,
    classes: Annotated[
        TunedClasses,
        typer.Option(help="base: learn half of them and measure retention on the other half."),
    ] = TunedClasses.all,
    validation_share: Annotated[
        float,
        typer.Option(
            min=0.05,
            max=0.9,
            callback=share,
            help="Share for validation if DIR has no val folder.",
        ),
    ] = 0.3,
    test_share: Annotated[
        float,
        typer.Option(min=0, max=0.9, callback=share, help="As in `fit`: put aside and never read."),
    ] = 0.3,
    seed: Seed = 1,
    set_: Overrides = None,
    device: Device = "auto",
    precision: PrecisionName = Precision.fp32,
    workers: Workers = 0,
    json_path: Json = None,
) -> None:
    """Choose λ, prompt depth and learning rate on validation images, within a time budget.

    The same command goes on where it stopped; with a larger --budget it tries more.
    """
    from promptot.cli.result_tables import tuning_table
    from promptot.experiments.tuning import tune as tune_folder
    from promptot.experiments.tuning.tune_task import PAGE, TRIALS
    from promptot.experiments.tuning.tuning_page import fit_command

    console = console_for(json_path)
    seconds = parse_duration(budget)

    def show(number: int, point: Point) -> None:
        if bar.disable:
            errors.print(
                f"point {number}: fit {100 * point.fit:.1f} %, "
                f"retention {100 * point.retention:.1f} % ({point.seconds:.1f} s)"
            )

    try:
        with progress_bar() as bar:
            found = tune_folder(
                folder,
                out,
                budget=seconds,
                choose=choose,
                backbone=backbone,
                recipe=recipe,
                shots=shots,
                classes=classes.value,
                validation_share=validation_share,
                test_share=test_share,
                seed=seed,
                overrides=set_ or (),
                device=device,
                precision=precision.value,
                workers=workers,
                progress=Stages(bar),
                on_task=lambda task: show_notes(errors, task.notes),
                on_point=show,
            )
    except (KeyboardInterrupt, SystemExit):
        if (out / TRIALS).is_file():
            errors.print(
                f"All finished points are kept in {plain(out)}; the same command goes on from "
                "there.",
                soft_wrap=True,
            )
        raise
    console.print(tuning_table(found))
    if found.finished and not found.ran:
        console.print("Everything had been tried already: nothing was left to do.")
    if not found.finished:
        console.print(f"[dim]The time ({plain(budget)}) was up; a larger --budget goes on.[/]")
    console.print(f"Report: [bold]{plain(out / PAGE)}[/]", soft_wrap=True)
    console.print(f"Next: {plain(fit_command(found))}", soft_wrap=True)
    write_result(found.as_json(), json_path)
