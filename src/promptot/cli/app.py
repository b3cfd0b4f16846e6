"""The commands, put together. They parse, call the library and print; all else is the library's."""

from __future__ import annotations

from typing import Annotated

import typer

from promptot.cli.backbones_command import backbones
from promptot.cli.benchmark_command import benchmark
from promptot.cli.command_options import add_command
from promptot.cli.console import PlainGroup
from promptot.cli.data_command import data
from promptot.cli.demo_command import demo
from promptot.cli.evaluate_command import evaluate
from promptot.cli.export_command import export
from promptot.cli.fit_command import fit
from promptot.cli.info_command import info
from promptot.cli.merge_command import merge
from promptot.cli.predict_command import predict
from promptot.cli.pull_command import pull
from promptot.cli.push_command import push
from promptot.cli.recipes_command import recipes
from promptot.cli.report_command import report
from promptot.cli.serve_command import serve
from promptot.cli.tune_command import tune

app = typer.Typer(
    name="promptot",
    cls=PlainGroup,
    help="Adapt CLIP to your own images with a few prompt tokens, and keep what it already knows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from promptot import __version__

        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


add_command(app, demo, "demo --seed 2")
add_command(app, fit, "fit photos/ --out runs/photos --shots 8 --seed 1")
add_command(app, evaluate, "evaluate runs/photos photos/")
add_command(app, predict, 'predict runs/photos a.jpg b.jpg --classes "cat,red panda"')
add_command(app, benchmark, "benchmark base-to-novel --out runs/b2n --seeds 1,2,3")
add_command(app, report, "report runs/photos more-photos/")
add_command(app, tune, "tune photos/ --budget 10m --out runs/tuning")
add_command(app, export, "export runs/photos --format onnx --out photos-onnx")
add_command(app, merge, "merge runs/a runs/b --out runs/both")
add_command(app, push, "push runs/photos user/photos --private")
add_command(app, pull, "pull user/photos --out runs/photos")
add_command(app, serve, "serve runs/photos")
add_command(app, recipes, "recipes prompt-ot")
add_command(app, info, "info runs/photos")
app.add_typer(data, name="data")
app.add_typer(backbones, name="backbones")
