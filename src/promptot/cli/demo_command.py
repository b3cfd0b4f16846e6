"""`promptot demo`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from promptot.cli import common_options as common
from promptot.cli.console import Screen, in_stages, plain


class DemoOptions(common.Options):
    """What `promptot demo` takes."""

    out: Annotated[Path, "Folder for the report."] = Path("promptot-demo")
    photos: Annotated[
        str | None, "Images to learn instead of the drawings, as `fit` takes them: a folder, …"
    ] = None
    backbone: common.BackboneName = "bundled:tiny"
    seed: common.Seed = 1
    overrides: common.Overrides = None
    device: common.Device = "auto"
    precision: common.Precision = "fp32"


def demo(options: DemoOptions, screen: Screen) -> None:
    """Compare zero-shot, IVLP and Prompt-OT on drawings inside the package, or on images."""
    from promptot.backbones.first_choice import real_clip
    from promptot.experiments.demo import headline, run_demo
    from promptot.reports import rich_table

    result = in_stages(run_demo)(**options.keywords())
    screen.print(rich_table(result.table, title=result.title))
    screen.print(plain(headline(result.outcomes)))
    screen.print(f"[dim]{plain(result.table.caption)}[/]")
    note = real_clip(options.backbone, own_images=options.photos is not None)
    if note is not None:
        screen.say(f"\n[yellow]![/] {note}\n")
    screen.say(f"{result.seconds:.0f} s. Report: [bold]{plain(result.page)}[/]")
    screen.result(result.as_json())
