"""`promptot data`: looking at images before anything is learned from them."""

from __future__ import annotations

from typing import Any

import typer
from typer.core import TyperGroup

from promptot.cli.console import (
    Stages,
    again,
    command,
    console_for,
    progress_bar,
    write_result,
)
from promptot.cli.data_check import check, shots
from promptot.cli.options import Data, Json, KeepSameNames, Names, Template, TestShare
from promptot.cli.run_options import BackboneName, Device, Workers


class _DescribeByDefault(TyperGroup):
    """`promptot data photos` is short for `promptot data describe photos`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if args and args[0] not in (*self.commands, *ctx.help_option_names):
            args = ["describe", *args]
        return list(super().parse_args(ctx, args))


data = typer.Typer(
    cls=_DescribeByDefault,
    no_args_is_help=True,
    help="Look at images before learning from them. `promptot data DATA` describes them.",
    context_settings={"help_option_names": ["-h", "--help"]},
)


@data.callback()
def _data() -> None:
    pass


data.command(epilog="Example: promptot data check coop --root DATA")(check)
data.command(epilog="Example: promptot data shots coop --root DATA --out lists")(shots)


@data.command(epilog="Example: promptot data photos/ --json photos.json")
def describe(
    context: typer.Context,
    data: Data,
    names: Names = None,
    template: Template = None,
    backbone: BackboneName = "bundled:tiny",
    test_share: TestShare = 0.3,
    keep_same_names: KeepSameNames = False,
    device: Device = "auto",
    workers: Workers = 0,
    json_path: Json = None,
) -> None:
    """Describe images: classes, sizes, what can't be read, leaks, zero-shot accuracy, shots."""
    from promptot.backbones.first_choice import FIRST_CHOICE, real_clip
    from promptot.cli.data_tables import survey_tables
    from promptot.inspection.survey_task import survey

    console = console_for(json_path)
    with progress_bar() as bar:
        found = survey(
            data,
            names=names,
            template=template,
            keep_same_names=keep_same_names,
            backbone=backbone,
            test_share=test_share,
            device=device,
            workers=workers,
            progress=Stages(bar),
        )
    console.print(survey_tables(found))
    real = again(context, "data", backbone=FIRST_CHOICE.name, json_path=None)
    note = real_clip(backbone, found.own_images, real)
    if note is not None:
        console.print(f"[yellow]![/] {note}", soft_wrap=True)
    out = f"runs/{found.name.replace(' ', '-')}"
    more = [] if names is None else ["--names", names]
    more += [] if template is None else ["--template", template]
    more += [] if backbone == "bundled:tiny" else ["--backbone", backbone]
    more += ["--keep-same-names"] if keep_same_names else []
    line = command("fit", data, "--out", out, "--shots", found.shots, *more)
    console.print(f"Next: {line}", soft_wrap=True)
    write_result(found.as_json(), json_path)
