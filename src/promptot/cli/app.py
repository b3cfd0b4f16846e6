"""The commands. They parse, call the library and print; all else is the library's."""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from promptot.cli import production, report_command, tune_command
from promptot.cli import serve_command as serve
from promptot.cli.backbones_command import backbones as backbones_app
from promptot.cli.console import (
    PlainGroup,
    Stages,
    again,
    command,
    console_for,
    errors,
    json_text,
    plain,
    progress_bar,
    show_notes,
    show_skipped,
    with_backbone,
    write_result,
)
from promptot.cli.data_command import data as data_app
from promptot.cli.options import (
    AdapterBackbone,
    Data,
    Json,
    KeepSameNames,
    Names,
    Template,
    TestShare,
    by_commas,
    split_names,
    three_shares,
)
from promptot.cli.run_options import (
    BackboneName,
    Classes,
    Device,
    Overrides,
    Precision,
    PrecisionName,
    ReadAt,
    Seed,
    Workers,
)
from promptot.errors import PromptotError

if TYPE_CHECKING:
    from promptot.runs.classifier import Prediction
    from promptot.runs.commands import Evaluation
    from promptot.runs.run import Run

app = typer.Typer(
    name="promptot",
    cls=PlainGroup,
    help="Adapt CLIP to your own images with a few prompt tokens, and keep what it already knows.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(data_app, name="data")


class Protocol(StrEnum):
    """How methods are compared."""

    base_to_novel = "base-to-novel"
    cross_dataset = "cross-dataset"
    domain_generalization = "domain-generalization"
    few_shot = "few-shot"


class Split(StrEnum):
    """Which images a benchmark tests on."""

    test = "test"
    validation = "validation"


class Format(StrEnum):
    """How predictions are printed."""

    table = "table"
    csv = "csv"
    jsonl = "jsonl"


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
    seed: Seed = 1,
    set_: Overrides = None,
    device: Device = "auto",
    precision: PrecisionName = Precision.fp32,
    json_path: Json = None,
) -> None:
    """Compare zero-shot, IVLP and Prompt-OT on the drawings inside the package."""
    from promptot.devices import pick_device
    from promptot.experiments.demo import headline, run_demo
    from promptot.reports import rich_table

    console = console_for(json_path)
    with progress_bar() as bar:
        result = run_demo(out, seed, set_ or (), pick_device(device), precision.value, Stages(bar))
    console.print(rich_table(result.table, title="A small CLIP, adapted to drawings of animals"))
    console.print(plain(headline(result.outcomes)))
    console.print(f"[dim]{plain(result.table.caption)}[/]")
    console.print(f"{result.seconds:.0f} s. Report: [bold]{plain(result.page)}[/]", soft_wrap=True)
    write_result(result.as_json(), json_path)


@app.command(epilog="Example: promptot fit photos/ --out runs/photos --shots 8 --seed 1")
def fit(
    context: typer.Context,
    data: Data,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for the run.")],
    names: Names = None,
    template: Template = None,
    keep_same_names: KeepSameNames = False,
    backbone: BackboneName = "bundled:tiny",
    recipe: Annotated[
        str, typer.Option("--recipe", "-r", help="See `promptot recipes`; or a YAML file.")
    ] = "prompt-ot",
    shots: Annotated[
        int | None, typer.Option(min=1, help="Images per class; the recipe's unless given.")
    ] = None,
    classes: Annotated[Classes, typer.Option(help="Which half of the classes.")] = Classes.all,
    test_share: TestShare = 0.3,
    seed: Seed = 1,
    set_: Overrides = None,
    device: Device = "auto",
    precision: PrecisionName = Precision.fp32,
    workers: Workers = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a run in --out.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in --out.")] = False,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write a page into --out too.")
    ] = True,
    log: Annotated[
        str, typer.Option(help="tensorboard, wandb, mlflow, by commas; CSV is always written.")
    ] = "",
    json_path: Json = None,
) -> None:
    """Learn prompts from your images and test them beside the frozen model."""
    from promptot.backbones.first_choice import FIRST_CHOICE, real_clip
    from promptot.cli.fit_progress import FitProgress
    from promptot.cli.result_tables import pairs, score_table
    from promptot.data.catalog.drawings import has_own_images
    from promptot.runs.commands import fit as fit_folder
    from promptot.runs.report.retention_panel import retention_doubt, retention_lines
    from promptot.runs.run_folder import ADAPTER, REPORT, has_checkpoint

    console = console_for(json_path)
    try:
        with progress_bar() as bar:
            run = fit_folder(
                data,
                out,
                names=names,
                template=template,
                keep_same_names=keep_same_names,
                backbone=backbone,
                recipe=recipe,
                shots=shots,
                classes=classes.value,
                test_share=test_share,
                seed=seed,
                overrides=set_ or (),
                device=device,
                precision=precision.value,
                workers=workers,
                overwrite=overwrite,
                resume=resume,
                report=report,
                log=by_commas(log),
                callbacks=FitProgress(bar, f"{recipe} on {backbone}", out),
            )
    except (KeyboardInterrupt, SystemExit):
        if has_checkpoint(out):
            errors.print(
                f"What was learnt so far is kept in {plain(out)}; the same command with --resume "
                "goes on from there.",
                soft_wrap=True,
            )
        raise
    if run.was_complete:
        console.print(
            f"The run in {plain(out)} is complete, and was made with these arguments: nothing was "
            "left to do but to test it again.",
            soft_wrap=True,
        )
    show_skipped(console, run.skipped)
    if run.scores:
        console.print(score_table(run.scores))
    else:
        console.print("No image was left for a test: give a test folder, or --test-share 0.3.")
    other = f"{out}-{FIRST_CHOICE.short}"
    instead = {"json_path": None, "overwrite": None, "resume": None, "out": other}
    real = again(context, "fit", backbone=FIRST_CHOICE.name, **instead)
    own = has_own_images(example.path for example in run.task.examples)
    note = real_clip(backbone, own, real)
    if note is not None:
        console.print(f"\n[yellow]![/] {note}\n", soft_wrap=True)
    doubt = retention_doubt(run.retention)
    if doubt:
        console.print(f"[yellow]![/] {doubt}", soft_wrap=True)
    console.print(pairs(retention_lines(run.retention), title="Retention"), "")
    size = sum(path.stat().st_size for path in (out / ADAPTER).iterdir())
    console.print(
        f"Learnt in {run.seconds:.1f} s. Adapter: [bold]{plain(out / ADAPTER)}[/] "
        f"({size / 1000:.0f} kB)",
        soft_wrap=True,
    )
    mass = run.log.mean("off_diagonal_mass")
    if mass is not None:
        meaning = ": it did what a point-wise penalty does" if mass < 0.0005 else ""
        console.print(
            f"Transport plan, mean over steps: {mass:.1%} of the mass off the diagonal, entropy "
            f"{run.log.mean('plan_entropy'):.3f}{meaning}.",
            soft_wrap=True,
        )
    if report:
        console.print(f"Report: [bold]{plain(out / REPORT)}[/]", soft_wrap=True)
    skipped = {item.path for item in run.skipped}
    images = [example.path for example in (*run.task.test, *run.task.train)]
    example = next(path for path in images if path not in skipped)
    console.print(f"Next: {command('predict', out, example)}", soft_wrap=True)
    write_result(_run_json(run), json_path)


@app.command(epilog="Example: promptot evaluate runs/photos photos/")
def evaluate(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")],
    data: Data,
    names: Names = None,
    keep_same_names: KeepSameNames = False,
    backbone: AdapterBackbone = None,
    device: Device = "auto",
    precision: PrecisionName = Precision.fp32,
    workers: Workers = 0,
    json_path: Json = None,
) -> None:
    """Test a run on images: the test split, or every image that was not trained on."""
    from promptot.cli.result_tables import score_table
    from promptot.runs.commands import evaluate as evaluate_folder

    console = console_for(json_path)

    def test(chosen: str | None) -> Evaluation:
        with progress_bar() as bar:
            return evaluate_folder(
                run,
                data,
                names=names,
                keep_same_names=keep_same_names,
                backbone=chosen,
                device=device,
                precision=precision.value,
                workers=workers,
                progress=Stages(bar),
            )

    result = with_backbone(test, backbone)
    show_notes(console, result.notes)
    show_skipped(console, result.skipped)
    if result.left_out is None:
        console.print(
            "[yellow]There is no manifest beside the adapter:[/] images that it was trained on, if "
            "any are among these, were tested too."
        )
    elif result.left_out:
        console.print(f"Left out because the run was trained on them: {result.left_out} images.")
    console.print(score_table(result.scores))
    write_result(result.as_json(), json_path)


@app.command(epilog='Example: promptot predict runs/photos a.jpg b.jpg --classes "cat,red panda"')
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder that `fit` wrote.", metavar="RUN")],
    images: Annotated[
        list[str],
        typer.Argument(help="Image files, folders of them, or patterns.", metavar="IMAGES"),
    ],
    classes: Annotated[
        str | None,
        typer.Option(help="Any names, by commas; synonyms of one class by bars: cat|kitten,dog."),
    ] = None,
    top_k: Annotated[int, typer.Option("--top-k", "-k", min=1, help="Names per image.")] = 3,
    format_: Annotated[Format, typer.Option("--format", "-f", help="How to print.")] = Format.table,
    backbone: AdapterBackbone = None,
    device: Device = "auto",
    json_path: Json = None,
) -> None:
    """Classify images, among the trained class names or any others."""
    if format_ is not Format.table and str(json_path) == "-":
        raise typer.BadParameter("--json - and --format both want standard output; choose one.")
    names = None if classes is None else split_names(classes)

    import promptot
    from promptot.cli.result_tables import prediction_table
    from promptot.data import find_images
    from promptot.devices import pick_device

    paths = find_images(images)
    classifier = with_backbone(
        lambda chosen: promptot.load(run, chosen, pick_device(device)), backbone
    )
    with progress_bar() as bar:
        count = Stages(bar).counter("images", len(paths))
        predictions = classifier.predict(paths, names, top_k, count)
    rows = [_prediction_json(p) for p in predictions]
    if format_ is Format.jsonl:
        for row in rows:
            typer.echo(json_text(row))
    elif format_ is Format.csv:
        _write_csv(predictions)
    else:
        console_for(json_path).print(prediction_table(predictions))
    write_result(rows, json_path)
    if all(p.problem for p in predictions):
        raise PromptotError("None of the images could be read.", fix="See the reasons above.")


@app.command(epilog="Example: promptot benchmark base-to-novel --out runs/b2n --seeds 1,2,3")
def benchmark(
    protocol: Annotated[
        Protocol, typer.Argument(help="What is trained on and what is tested.", metavar="PROTOCOL")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder for results and report.")
    ] = None,
    methods: Annotated[
        str,
        typer.Option(
            "--methods",
            "-m",
            help="Recipes by commas, each with values and a name of its own if it needs them: "
            "prompt-ot,weak=prompt-ot[objective.strength=3].",
        ),
    ] = "zero-shot,ivlp,prompt-ot",
    tasks: Annotated[
        str,
        typer.Option(
            help="bundled:<group>, or what `fit` takes, by commas; all bundled groups if not given."
        ),
    ] = "",
    sources: Annotated[
        str, typer.Option(help="Those of the tasks to train on, by commas; all if not given.")
    ] = "",
    seeds: Annotated[str, typer.Option(help="By commas.")] = "1,2,3",
    shots: Annotated[
        str | None,
        typer.Option(help="Images per class; by commas for few-shot. Default 16; 1,2,4,8,16."),
    ] = None,
    set_: Overrides = None,
    control: Annotated[
        str | None,
        typer.Option(help="Method to compare with; pointwise, or the first one, if not given."),
    ] = None,
    split: Annotated[
        Split, typer.Option(help="Images to test on; validation is for choosing settings.")
    ] = Split.test,
    backbone: BackboneName = "bundled:tiny",
    device: Device = "auto",
    precision: PrecisionName = Precision.fp32,
    workers: Workers = 0,
    cache: Annotated[
        Path | None, typer.Option(help="Folder for image features; OUT/cache if not given.")
    ] = None,
    report_only: Annotated[
        bool, typer.Option("--report-only", help="Run nothing; sum up what is finished.")
    ] = False,
    suite: Annotated[
        str | None, typer.Option(help="Public data sets instead of tasks: coop.")
    ] = None,
    root: Annotated[
        Path | None, typer.Option(help="The folder that holds the data sets of the suite.")
    ] = None,
    unverified: Annotated[
        bool, typer.Option("--unverified", help="Accept other counts than the published ones.")
    ] = False,
    shot_lists: Annotated[
        Path | None, typer.Option(help="Folder of shot lists to learn from instead of drawing.")
    ] = None,
    split_shares: Annotated[
        str | None,
        typer.Option(
            help="Of training, validation and test where a task has no splits; 0.5,0.2,0.3."
        ),
    ] = None,
    read_at: Annotated[
        ReadAt,
        typer.Option(help="Epoch to test: the last, or the one whose figures were published."),
    ] = ReadAt.last,
    settings: Annotated[
        bool, typer.Option("--settings", help="Print each cell's settings in a suite; run nothing.")
    ] = False,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Processes to share it.")] = 1,
    estimate: Annotated[
        bool, typer.Option("--estimate", help="Say what the missing cells will cost; run nothing.")
    ] = False,
    json_path: Json = None,
) -> None:
    """Compare methods by a protocol; run what is missing, then write tables and a page.

    Protocols: base-to-novel, cross-dataset, domain-generalization, few-shot.
    """
    from promptot.cli.fit_progress import benchmark_observer
    from promptot.cli.suites import forecast_json, settings_json, show_forecast
    from promptot.experiments import run_benchmark
    from promptot.experiments.report.benchmark_tables import (
        benchmark_tables,
        settings_table,
        to_rich,
    )
    from promptot.experiments.run_benchmark import RESULTS, benchmark_settings, forecast_benchmark

    console = console_for(json_path)
    cells: dict[str, Any] = {
        "methods": methods,
        "tasks": tuple(by_commas(tasks)),
        "seeds": tuple(_numbers("--seeds", seeds)),
        "shots": None if shots is None else tuple(_numbers("--shots", shots)),
        "overrides": tuple(set_ or ()),
        "suite": suite,
        "read_at": read_at.value,
    }
    if settings:
        listed, rows = benchmark_settings(protocol.value, **cells)
        console.print(to_rich(settings_table(rows)))
        write_result(settings_json(protocol.value, cells, listed, rows), json_path)
        return
    if out is None:
        raise typer.BadParameter("Missing option '--out' / '-o': the folder for the results.")
    asked: dict[str, Any] = {
        **cells,
        "sources": tuple(by_commas(sources)),
        "control": control,
        "split": split.value,
        "backbone": backbone,
        "device": device,
        "precision": precision.value,
        "cache": cache,
        "root": root,
        "unverified": unverified,
        "shot_lists": shot_lists,
        "jobs": jobs,
    }
    if split_shares is not None:
        asked["split_shares"] = three_shares(split_shares)
    if estimate:
        forecast = forecast_benchmark(protocol.value, out, **asked)
        show_forecast(console, forecast)
        write_result(forecast_json(forecast), json_path)
        return
    try:
        with progress_bar() as bar:
            observer = benchmark_observer(bar, forecast=suite is not None)
            result = run_benchmark(
                protocol.value,
                out,
                workers=workers,
                report_only=report_only,
                observer=observer,
                **asked,
            )
    except (KeyboardInterrupt, SystemExit):
        if (out / RESULTS).is_file():
            errors.print(
                f"All finished cells are kept in {plain(out / RESULTS)}; the same command goes on "
                "from there.",
                soft_wrap=True,
            )
        raise
    if result.ran == 0 and not report_only:
        console.print(
            f"All {result.cells} cells were in {plain(out / RESULTS)} already: nothing was left to "
            "run.",
            soft_wrap=True,
        )
    for table in benchmark_tables(result.summary)[: 3 if result.summary.published else 2]:
        console.print(to_rich(table))
    if result.summary.settings:
        small_print = " ".join(result.summary.small_print)
        console.print(to_rich(settings_table(result.summary.settings, small_print)))
    for text in (*result.summary.notes, *result.problems):
        console.print(f"[yellow]Note:[/] {plain(text)}", soft_wrap=True)
    console.print(f"Report: [bold]{plain(result.files[-1])}[/]", soft_wrap=True)
    write_result(result.as_json(), json_path)


report_command.register(app)
tune_command.register(app)
production.register(app)
serve.register(app)
app.add_typer(backbones_app, name="backbones")


@app.command(epilog="Example: promptot recipes prompt-ot")
def recipes(
    name: Annotated[
        str | None, typer.Argument(help="Show all values of one recipe.", metavar="[NAME]")
    ] = None,
    json_path: Json = None,
) -> None:
    """List the recipes, or show one with the keys that --set takes."""
    from promptot.cli.result_tables import pairs, recipe_list
    from promptot.recipes import describe, list_recipes, load_recipe

    console = console_for(json_path)
    if name is not None:
        recipe = load_recipe(name)
        console.print(recipe_list([recipe]))
        values = {key: value for key, value in describe(recipe).items() if "." in key}
        console.print("", pairs(values))
        console.print("\n[dim]`promptot fit --set KEY=VALUE` replaces any of these.[/]")
        write_result(recipe.model_dump(mode="json"), json_path)
        return
    shipped = [load_recipe(known) for known in list_recipes()]
    console.print(recipe_list(shipped))
    write_result([recipe.model_dump(mode="json") for recipe in shipped], json_path)


@app.command(epilog="Example: promptot info runs/photos")
def info(
    run: Annotated[
        Path | None, typer.Argument(help="A run folder; without it, this machine.", metavar="[RUN]")
    ] = None,
    json_path: Json = None,
) -> None:
    """Show what a run learned and from what, or the versions and devices of this machine."""
    from promptot.cli.result_tables import card_tables, pairs

    console = console_for(json_path)
    if run is None:
        import torch

        from promptot.runs.run import versions

        found: dict[str, Any] = {
            **versions(),
            "cuda devices": torch.cuda.device_count(),
            "mps": torch.backends.mps.is_available(),
            "cpu threads": torch.get_num_threads(),
        }
        console.print(pairs(found))
        write_result(found, json_path)
        return
    from promptot.runs.adapter import load_adapter, warn_of_activation
    from promptot.runs.classifier import adapter_folder

    card, prompts = load_adapter(adapter_folder(run))
    warn_of_activation(card)
    parameters = 0 if prompts is None else sum(p.numel() for p in prompts.parameters())
    console.print(card_tables(card, parameters))
    write_result(card.model_dump(mode="json"), json_path)


def _numbers(option: str, text: str) -> list[int]:
    try:
        return [int(part) for part in by_commas(text)]
    except ValueError:
        raise PromptotError(
            f"{option} '{text}' are not whole numbers.", fix=f"Write {option} 1,2,3."
        ) from None


def _prediction_json(prediction: Prediction) -> dict[str, Any]:
    return {
        "image": prediction.image,
        "class_names": list(prediction.class_names),
        "probabilities": [round(value, 6) for value in prediction.probabilities],
        "problem": prediction.problem,
    }


def _write_csv(predictions: list[Prediction]) -> None:
    from promptot.files.csv_text import csv_line

    sys.stdout.write(csv_line(["image", "rank", "class_name", "probability", "problem"]))
    for p in predictions:
        ranked = enumerate(zip(p.class_names, p.probabilities, strict=True), start=1)
        for rank, (name, probability) in ranked:
            sys.stdout.write(csv_line([p.image, rank, name, f"{probability:.6f}", ""]))
        if p.problem:
            sys.stdout.write(csv_line([p.image, "", "", "", p.problem]))


def _run_json(run: Run) -> dict[str, Any]:
    from promptot.runs.run import PLAN_FIGURES

    return {
        "folder": str(run.folder),
        "class_names": list(run.task.class_names),
        "images": len(run.task.train),
        "was_complete": run.was_complete,
        "seconds": run.seconds,
        "plan": {name: run.log.mean(name) for name in PLAN_FIGURES},
        "retention": run.retention.as_json(),
        "results": {name: scores.as_json() for name, scores in run.scores.items()},
        "skipped": [{"path": item.path, "reason": item.reason} for item in run.skipped],
        "notes": list(run.task.notes),
    }
