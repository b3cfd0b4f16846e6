"""`promptot export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from promptot.cli import common_options as common
from promptot.cli.console import Screen, plain, with_backbone


class ExportOptions(common.Options):
    """What `promptot export` takes."""

    run: common.RunFolder
    out: Annotated[Path, "--out", "-o", "Folder for the export."]
    format: Annotated[
        Literal["onnx", "torchscript", "open_clip", "transformers", "openai"],
        *("--format", "-f"),
        "Where it will run.",
    ] = "onnx"
    classes: Annotated[str | None, "Names to classify among, by commas; those of the training."] = (
        None
    )
    backbone: common.AdapterBackbone = None
    overwrite: common.Overwrite = False


def export(options: ExportOptions, screen: Screen) -> None:
    """Write a run as a classifier of fixed names for another runtime, checked against the run."""
    from promptot.runs.export_run import export as export_run

    result = with_backbone(
        export_run,
        options.run,
        options.out,
        options.format,
        common.split_names(options.classes),
        backbone=options.backbone,
        overwrite=options.overwrite,
    )
    size = sum((result.folder / name).stat().st_size for name in result.files)
    difference = result.difference
    screen.say(
        f"{len(result.class_names)} classes for [bold]{result.format}[/] in "
        f"[bold]{plain(result.folder)}[/] ({size / 1e6:.1f} MB): {', '.join(result.files)}"
    )
    screen.say(
        f"Compared with the run on {difference.images} images: probabilities differ by "
        f"{difference.probabilities:.0e} at most, cosine similarities by {difference.cosines:.0e}"
        + ("." if difference.text is None else f", text features by {difference.text:.0e}.")
    )
    screen.result(result.as_json())
