"""Commands for using a run elsewhere: export, merge, push and pull."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from promptot.cli.console import command, console_for, plain, with_backbone, write_result
from promptot.cli.options import AdapterBackbone, Json, split_names


class ExportFormat(StrEnum):
    """Where an export runs."""

    onnx = "onnx"
    torchscript = "torchscript"
    open_clip = "open_clip"
    transformers = "transformers"


Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what an earlier call wrote.")]
RunFolder = Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")]


def register(app: typer.Typer) -> None:
    """Add the commands of this module."""
    app.command(epilog="Example: promptot export runs/photos --format onnx --out photos-onnx")(
        export
    )
    app.command(epilog="Example: promptot merge runs/a runs/b --out runs/both")(merge)
    app.command(epilog="Example: promptot push runs/photos user/photos --private")(push)
    app.command(epilog="Example: promptot pull user/photos --out runs/photos")(pull)


def export(
    run: RunFolder,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the export.")],
    format_: Annotated[
        ExportFormat, typer.Option("--format", "-f", help="Where it will run.")
    ] = ExportFormat.onnx,
    classes: Annotated[
        str | None, typer.Option(help="Names to classify among, by commas; those of the training.")
    ] = None,
    backbone: AdapterBackbone = None,
    overwrite: Overwrite = False,
    json_path: Json = None,
) -> None:
    """Write a run as a classifier of fixed names for another runtime, checked against the run."""
    from promptot.runs.export_run import export as export_run

    names = None if classes is None else split_names(classes)
    result = with_backbone(
        lambda chosen: export_run(
            run, out, format_.value, names, backbone=chosen, overwrite=overwrite
        ),
        backbone,
    )
    console = console_for(json_path)
    size = sum((result.folder / name).stat().st_size for name in result.files)
    difference = result.difference
    console.print(
        f"{len(result.class_names)} classes for [bold]{result.format}[/] in "
        f"[bold]{plain(result.folder)}[/] ({size / 1e6:.1f} MB): {', '.join(result.files)}",
        soft_wrap=True,
    )
    console.print(
        f"Compared with the run on {difference.images} images: probabilities differ by "
        f"{difference.probabilities:.0e} at most, cosine similarities by {difference.cosines:.0e}"
        + ("." if difference.text is None else f", text features by {difference.text:.0e}."),
        soft_wrap=True,
    )
    write_result(result.as_json(), json_path)


def merge(
    runs: Annotated[list[Path], typer.Argument(help="Two runs or more.", metavar="RUN...")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the merged run.")],
    weights: Annotated[
        str | None, typer.Option(help="One number for each run, by commas; all alike if not given.")
    ] = None,
    overwrite: Overwrite = False,
    json_path: Json = None,
) -> None:
    """Average what several runs learned into one."""
    from promptot.cli.options import decimals
    from promptot.runs.merging import merge as merge_runs

    shares = None if weights is None else decimals("--weights", weights)
    merged = merge_runs(runs, out, shares, overwrite=overwrite)
    console = console_for(json_path)
    parts = ", ".join(
        f"{plain(run)} × {share:.3g}" for run, share in zip(runs, merged.weights, strict=True)
    )
    console.print(f"Merged {parts} into [bold]{plain(merged.folder)}[/].", soft_wrap=True)
    if merged.apart > merged.APART:
        console.print(
            f"[yellow]Note:[/] the runs' tokens are {merged.apart:.1f} times as far apart as they "
            "are long, as from different starts; test the average before using it.",
            soft_wrap=True,
        )
    console.print(f"Next: {command('evaluate', merged.folder, 'DIR')}", soft_wrap=True)
    write_result(merged.as_json(), json_path)


def push(
    run: RunFolder,
    repository: Annotated[str, typer.Argument(help="user/name", metavar="USER/NAME")],
    private: Annotated[bool, typer.Option("--private", help="For you alone.")] = False,
    json_path: Json = None,
) -> None:
    """Put a run's adapter on the Hugging Face Hub, with a model card."""
    from promptot.runs.hub import push as push_run

    url = push_run(run, repository, private=private)
    console_for(json_path).print(f"Pushed to [bold]{plain(url)}[/]", soft_wrap=True)
    write_result({"url": url}, json_path)


def pull(
    repository: Annotated[str, typer.Argument(help="user/name", metavar="USER/NAME")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the adapter.")],
    revision: Annotated[str | None, typer.Option(help="A branch, a tag or a commit.")] = None,
    overwrite: Overwrite = False,
    json_path: Json = None,
) -> None:
    """Fetch an adapter from the Hugging Face Hub."""
    from promptot.runs.hub import pull as pull_run

    folder = pull_run(repository, out, revision=revision, overwrite=overwrite)
    console = console_for(json_path)
    console.print(f"Fetched into [bold]{plain(folder)}[/].", soft_wrap=True)
    console.print(f"Next: {command('predict', folder, 'new.jpg')}", soft_wrap=True)
    write_result({"folder": str(folder)}, json_path)
