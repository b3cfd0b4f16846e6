"""The commands. They parse, call the library and print; all else is the library's."""

from __future__ import annotations

import csv
import json
import sys
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.table import Table

from promptot.cli.console import (
    Stages,
    console_for,
    progress_bar,
    show_skipped,
    training_callbacks,
    write_result,
)
from promptot.errors import PromptotError

if TYPE_CHECKING:
    from promptot.evaluation.scoring import Scores

app = typer.Typer(
    name="promptot",
    help="Adapt CLIP to your own images with a few prompt tokens, and keep what it already knows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Classes(str, Enum):
    """Which classes to train on."""

    all = "all"
    base = "base"
    novel = "novel"


class Format(str, Enum):
    """How predictions are printed."""

    table = "table"
    csv = "csv"
    jsonl = "jsonl"


Json = Annotated[
    Path | None,
    typer.Option("--json", metavar="PATH", help="Also write the result as JSON ('-': to stdout)."),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:<index> or mps.")]
Precision = Annotated[str, typer.Option(help="fp32, or bf16 in the towers.")]
BackboneName = Annotated[str, typer.Option("--backbone", "-b", help="See `promptot backbones`.")]
Workers = Annotated[int, typer.Option(min=0, help="Processes that load images.")]
Overrides = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Replace a recipe's value; repeatable."),
]


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


@app.command(epilog="Example: promptot demo --seed 2")
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the report.")] = Path("promptot-demo"),
    seed: Annotated[int, typer.Option(help="Of shots, start and order.")] = 1,
    set_: Overrides = None,
    device: Device = "cpu",
    precision: Precision = "fp32",
    json_path: Json = None,
) -> None:
    """Compare zero-shot, IVLP and Prompt-OT on the drawings inside the package."""
    from promptot.demo import headline, run_demo
    from promptot.devices import pick_device
    from promptot.reports import rich_table

    console = console_for(json_path)
    with progress_bar(console) as bar:
        result = run_demo(out, seed, set_ or (), pick_device(device), precision, Stages(bar))
    console.print(rich_table(result.table, title="A small CLIP, adapted to drawings of animals"))
    console.print(escape(headline(result.outcomes)), highlight=False)
    console.print(f"{result.seconds:.0f} s. Report: {result.page}", highlight=False)
    write_result(result.as_json(), json_path)


@app.command(epilog="Example: promptot fit photos/ --out runs/photos --shots 8 --seed 1")
def fit(
    folder: Annotated[Path, typer.Argument(help="A folder of class folders.", metavar="DIR")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")],
    backbone: BackboneName = "bundled:tiny",
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="See `promptot recipes`; or a YAML file.")
    ] = "prompt-ot",
    shots: Annotated[
        int | None, typer.Option(min=1, help="Images per class; the recipe's unless given.")
    ] = None,
    classes: Annotated[Classes, typer.Option(help="Which half of the classes.")] = Classes.all,
    test_share: Annotated[
        float,
        typer.Option(min=0, max=0.9, help="Share held out for testing if DIR has no test folder."),
    ] = 0.3,
    seed: Annotated[int, typer.Option(help="Of shots, start and order.")] = 1,
    set_: Overrides = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    json_path: Json = None,
) -> None:
    """Learn prompts from a folder of images and test them beside the frozen model."""
    from promptot.api import fit as fit_folder

    console = console_for(json_path)
    with progress_bar(console) as bar:
        run = fit_folder(
            folder,
            out,
            backbone=backbone,
            recipe=recipe,
            shots=shots,
            classes=classes.value,
            test_share=test_share,
            seed=seed,
            overrides=set_ or (),
            device=device,
            precision=precision,
            workers=workers,
            overwrite=overwrite,
            resume=resume,
            callbacks=training_callbacks(bar),
        )
    show_skipped(console, run.skipped)
    learnt = f"{len(run.task.train)} images of {len(run.task.class_names)} classes"
    console.print(f"Learnt from {learnt} in {run.seconds:.1f} s; adapter in {run.folder}/adapter")
    if run.scores:
        console.print(_score_table(run.scores))
    else:
        console.print("No image was left for a test: give a test folder, or --test-share 0.3.")
    write_result(_run_json(run), json_path)


@app.command(epilog="Example: promptot evaluate runs/photos photos/")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")],
    folder: Annotated[Path, typer.Argument(help="A folder of class folders.", metavar="DIR")],
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Unless the adapter's own name.")
    ] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    workers: Workers = 0,
    json_path: Json = None,
) -> None:
    """Test a run on a folder: its test folder, or every image that was not trained on."""
    from promptot.api import evaluate as evaluate_folder

    console = console_for(json_path)
    with progress_bar(console) as bar:
        result = evaluate_folder(
            run,
            folder,
            backbone=backbone,
            device=device,
            precision=precision,
            workers=workers,
            progress=Stages(bar),
        )
    show_skipped(console, result.skipped)
    if result.left_out:
        console.print(f"Left out {result.left_out} images that the run was trained on.")
    console.print(_score_table(result.scores))
    write_result(result.as_json(), json_path)


@app.command(epilog='Example: promptot predict runs/photos a.jpg b.jpg --classes "cat,red panda"')
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")],
    images: Annotated[list[Path], typer.Argument(help="Image files.", metavar="IMAGES...")],
    classes: Annotated[
        str | None, typer.Option(help="Names to choose among, by commas; any names will do.")
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Names per image.")] = 3,
    format_: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.table,
    backbone: Annotated[
        str | None, typer.Option("--backbone", "-b", help="Unless the adapter's own name.")
    ] = None,
    device: Device = "auto",
    json_path: Json = None,
) -> None:
    """Classify images, among the trained class names or any others."""
    import promptot
    from promptot.devices import pick_device

    console = console_for(json_path)
    classifier = promptot.load(run, backbone, pick_device(device))
    names = None if classes is None else [name.strip() for name in classes.split(",")]
    predictions = classifier.predict(images, names, top_k)
    rows = [
        {
            "image": p.image,
            "class_names": list(p.class_names),
            "probabilities": [round(value, 6) for value in p.probabilities],
            "problem": p.problem,
        }
        for p in predictions
    ]
    if format_ is Format.jsonl:
        for row in rows:
            typer.echo(json.dumps(row, ensure_ascii=False))
    elif format_ is Format.csv:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(["image", "rank", "class_name", "probability", "problem"])
        for p in predictions:
            ranked = list(zip(p.class_names, p.probabilities, strict=True))
            for rank, (name, probability) in enumerate(ranked, start=1):
                writer.writerow([p.image, rank, name, f"{probability:.6f}", ""])
            if p.problem:
                writer.writerow([p.image, "", "", "", p.problem])
    else:
        console.print(_prediction_table(predictions))
    write_result(rows, json_path)
    if predictions and all(p.problem for p in predictions):
        raise PromptotError("None of the images could be read.", fix="See the reasons above.")


@app.command(epilog="Example: promptot backbones")
def backbones(json_path: Json = None) -> None:
    """List where frozen models can come from."""
    from promptot.backbones.bundled import list_bundled
    from promptot.backbones.load import SOURCES

    console = console_for(json_path)
    table = Table("name", "what", box=None, header_style="bold")
    for source in SOURCES.values():
        table.add_row(escape(source.pattern), source.summary)
    console.print(table)
    console.print(f"Bundled: {', '.join(f'bundled:{name}' for name in list_bundled())}")
    result = {name: {"pattern": s.pattern, "summary": s.summary} for name, s in SOURCES.items()}
    write_result({"sources": result, "bundled": list_bundled()}, json_path)


@app.command(epilog="Example: promptot recipes prompt-ot")
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show all values of one recipe.", metavar="[NAME]")
    ] = None,
    json_path: Json = None,
) -> None:
    """List the recipes, or show one with the keys that --set takes."""
    from promptot.recipes import describe, list_recipes, load_recipe

    console = console_for(json_path)
    if name is not None:
        recipe = load_recipe(name)
        console.print(_pairs(describe(recipe)))
        write_result(recipe.model_dump(mode="json"), json_path)
        return
    shipped = [load_recipe(known) for known in list_recipes()]
    table = Table("recipe", "what it is", "paper", box=None, header_style="bold")
    for recipe in shipped:
        table.add_row(recipe.name, recipe.summary, recipe.paper or "")
    console.print(table)
    write_result([recipe.model_dump(mode="json") for recipe in shipped], json_path)


@app.command(epilog="Example: promptot info runs/photos")
def info(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder; without it, this machine.", metavar="[RUN]")
    ] = None,
    json_path: Json = None,
) -> None:
    """Show what a run learned and from what, or the versions and devices of this machine."""
    console = console_for(json_path)
    if run is None:
        import torch

        from promptot.run import versions

        found: dict[str, Any] = {
            **versions(),
            "cuda devices": torch.cuda.device_count(),
            "mps": torch.backends.mps.is_available(),
            "cpu threads": torch.get_num_threads(),
        }
        console.print(_pairs(found))
        write_result(found, json_path)
        return
    from promptot.adapter import load_adapter
    from promptot.classifier import adapter_folder

    card, prompts = load_adapter(adapter_folder(run))
    count = 0 if prompts is None else sum(p.numel() for p in prompts.parameters())
    shown: dict[str, Any] = {
        "backbone": f"{card.backbone.name} ({card.backbone.weight_hash[:12]})",
        "learnt parameters": f"{count:,}",
        "classes": f"{len(card.class_names)}: {_shorten(card.class_names)}",
        "template": card.template,
        **{f"recipe {key}": value for key, value in card.recipe.items()},
        **card.metrics,
        **{f"version {key}": value for key, value in card.versions.items()},
    }
    console.print(_pairs(shown))
    write_result(card.model_dump(mode="json"), json_path)


def _run_json(run: Any) -> dict[str, Any]:
    from promptot.run import summarise_scores

    return {
        "folder": str(run.folder),
        "class_names": list(run.task.class_names),
        "images": len(run.task.train),
        "seconds": run.seconds,
        "results": summarise_scores(run.scores),
        "skipped": [{"path": item.path, "reason": item.reason} for item in run.skipped],
    }


def _score_table(scores: dict[str, Scores]) -> Table:
    table = Table("tested on", "images", "classes", "zero-shot", "adapted", box=None)
    table.header_style = "bold"

    def percent(value: float, interval: tuple[float, float]) -> str:
        return f"{100 * value:.1f} % ({100 * interval[0]:.1f}–{100 * interval[1]:.1f})"

    for name, result in scores.items():
        table.add_row(
            name,
            str(len(result.labels)),
            str(result.student.shape[1]),
            percent(result.teacher_accuracy, result.teacher_interval),
            percent(result.student_accuracy, result.student_interval),
        )
    return table


def _prediction_table(predictions: Any) -> Table:
    table = Table("image", "class", "probability", box=None, header_style="bold")
    for p in predictions:
        if p.problem:
            table.add_row(escape(p.image), f"[red]{escape(p.problem)}[/]", "")
        for rank, (name, value) in enumerate(zip(p.class_names, p.probabilities, strict=True)):
            style = "bold" if rank == 0 else "dim"
            shown = escape(p.image) if rank == 0 else ""
            bar = "█" * round(20 * value)
            table.add_row(shown, f"[{style}]{escape(name)}[/]", f"{100 * value:5.1f} % {bar}")
    return table


def _pairs(values: dict[str, Any]) -> Table:
    table = Table(box=None, show_header=False)
    for key, value in values.items():
        table.add_row(f"[bold]{escape(str(key))}[/]", escape(str(value)))
    return table


def _shorten(names: tuple[str, ...], most: int = 12) -> str:
    return ", ".join(names[:most]) + (", ..." if len(names) > most else "")
