"""`promptot data describe`, or `promptot data` for short."""

from __future__ import annotations

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, again, command, in_stages


class DescribeOptions(common.Options):
    """What `promptot data describe` takes."""

    context: typer.Context
    data: common.Data
    names: common.Names = None
    template: common.Template = None
    backbone: common.BackboneName = "bundled:tiny"
    test_share: common.TestShare = 0.3
    keep_same_names: common.KeepSameNames = False
    device: common.Device = "auto"
    workers: common.Workers = 0


def describe(options: DescribeOptions, screen: Screen) -> None:
    """Describe images: classes, sizes, what can't be read, leaks, zero-shot accuracy, shots."""
    from promptot.backbones.first_choice import FIRST_CHOICE, real_clip
    from promptot.cli.data_tables import survey_tables
    from promptot.inspection.survey_task import survey

    found = in_stages(survey)(options.data, **options.keywords("data"))
    screen.print(survey_tables(found))
    real = again(options.context, "data", backbone=FIRST_CHOICE.name, json_path=None)
    note = real_clip(options.backbone, found.own_images, real)
    if note is not None:
        screen.say(f"[yellow]![/] {note}")
    out = f"runs/{found.name.replace(' ', '-')}"
    more = [] if options.names is None else ["--names", options.names]
    more += [] if options.template is None else ["--template", options.template]
    more += [] if options.backbone == "bundled:tiny" else ["--backbone", options.backbone]
    more += ["--keep-same-names"] if options.keep_same_names else []
    line = command("fit", options.data, "--out", out, "--shots", found.shots, *more)
    screen.say(f"Next: {line}")
    screen.result(found.as_json())
