"""`promptot tune`."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from promptot.cli import common_options as common
from promptot.cli.console import (
    Screen,
    Stages,
    errors,
    interruption_note,
    plain,
    progress_bar,
    show_notes,
)

if TYPE_CHECKING:
    from promptot.experiments.tuning import Point

_UNITS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600}


class TuneOptions(common.Options):
    """What `promptot tune` takes."""

    folder: Annotated[Path, typer.Argument(help="A folder of class folders.", metavar="DIR")]
    out: Annotated[Path, "--out", "-o", "Folder for trials, recipe and page."]
    budget: Annotated[
        str, typer.Option(help="Time for all trials together: 90s, 10m, 1h.", metavar="TIME")
    ] = "10m"
    choose: Annotated[
        int | None,
        typer.Option(min=1, help="Write the recipe of this point; the recommended if not given."),
    ] = None
    backbone: common.BackboneName = "bundled:tiny"
    recipe: Annotated[str, "--recipe", "-r", "Where to start; see `promptot recipes`."] = (
        "prompt-ot"
    )
    shots: common.Shots = None
    classes: Annotated[
        Literal["all", "base"],
        "base: learn half of them and measure retention on the other half.",
    ] = "all"
    validation_share: Annotated[
        float, common.share(0.05, "Share for validation if DIR has no val folder.")
    ] = 0.3
    test_share: Annotated[float, common.share(0, "As in `fit`: put aside and never read.")] = 0.3
    learning: common.Learning


def parse_duration(text: str) -> float:
    """Seconds, from a number with or without a unit (s, m, h).

    Raises:
        BadParameter: it is none.

    Example:
        >>> parse_duration("10m"), parse_duration("90"), parse_duration("1.5h")
        (600.0, 90.0, 5400.0)
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*(s|m|min|h|)\s*", text, re.IGNORECASE | re.ASCII)
    if match is None or not float(match[1]) > 0:
        raise typer.BadParameter(f"'{text}' is no time; write 90s, 10m or 1h.")
    return float(match[1]) * _UNITS[match[2].lower()]


def tune(options: TuneOptions, screen: Screen) -> None:
    """Choose λ, prompt depth and learning rate on validation images, within a time budget.

    The same command goes on where it stopped; with a larger --budget it tries more.
    """
    from promptot.cli.result_tables import tuning_table
    from promptot.experiments.tuning import tune as tune_folder
    from promptot.experiments.tuning.tune_task import PAGE, TRIALS
    from promptot.experiments.tuning.tuning_page import fit_command

    out = options.out
    settings = options.keywords("folder", "out", budget=parse_duration(options.budget))

    def show(number: int, point: Point) -> None:
        if bar.disable:
            errors.print(
                f"point {number}: fit {100 * point.fit:.1f} %, "
                f"retention {100 * point.retention:.1f} % ({point.seconds:.1f} s)"
            )

    note = f"All finished points are kept in {plain(out)}; the same command goes on from there."
    with interruption_note(note, (out / TRIALS).is_file), progress_bar() as bar:
        tuning = tune_folder(
            options.folder,
            out,
            progress=Stages(bar),
            on_task=lambda task: show_notes(errors, task.notes),
            on_point=show,
            **settings,
        )
    screen.print(tuning_table(tuning))
    if tuning.finished and not tuning.ran:
        screen.print("Everything had been tried already: nothing was left to do.")
    if not tuning.finished:
        screen.print(
            f"[dim]The time ({plain(options.budget)}) was up; a larger --budget goes on.[/]"
        )
    screen.say(f"Report: [bold]{plain(out / PAGE)}[/]")
    screen.say(f"Next: {plain(fit_command(tuning))}")
    screen.result(tuning.as_json())
