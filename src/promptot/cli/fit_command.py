"""`promptot fit`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen, again, command, interruption_note, plain, progress_bar

if TYPE_CHECKING:
    from promptot.runs.run import Run


class FitOptions(common.Options):
    """What `promptot fit` takes."""

    context: typer.Context
    data: common.Data
    out: Annotated[Path, "--out", "-o", "Folder for the run."]
    class_names: common.Names = None
    template: common.Template = None
    keep_same_names: common.KeepSameNames = False
    backbone: common.BackboneName = "bundled:tiny"
    recipe: Annotated[str, "--recipe", "-r", "See `promptot recipes`; or a YAML file."] = (
        "prompt-ot"
    )
    shots: common.Shots = None
    classes: Annotated[Literal["all", "base", "novel"], "Which half of the classes."] = "all"
    test_share: common.TestShare = 0.3
    learning: common.Learning
    overwrite: Annotated[bool, "Replace a run in --out."] = False
    resume: Annotated[bool, "Go on with the run in --out."] = False
    report: Annotated[bool, "Write a page into --out too."] = True
    log: Annotated[str, "tensorboard, wandb, mlflow, by commas; CSV is always written."] = ""


def fit(options: FitOptions, screen: Screen) -> None:
    """Learn prompts from your images and test them beside the frozen model."""
    from promptot.cli.fit_progress import FitProgress
    from promptot.runs.fitting import fit as fit_folder
    from promptot.runs.run_folder import has_checkpoint

    out = options.out
    note = (
        f"What was learnt so far is kept in {plain(out)}; the same command with --resume goes on "
        "from there."
    )
    with interruption_note(note, lambda: has_checkpoint(out)), progress_bar() as bar:
        listener = FitProgress(bar, f"{options.recipe} on {options.backbone}", out)
        trackers = common.by_commas(options.log)
        settings = options.keywords("data", "out", log=trackers, listener=listener)
        run = fit_folder(options.data, out, **settings)
    if run.was_complete:
        screen.say(
            f"The run in {plain(out)} is complete, and was made with these arguments: nothing was "
            "left to do but to test it again."
        )
    screen.skipped(run.skipped)
    _show_scores(screen, run, options)
    _show_adapter(screen, run, options)
    skipped = {item.path for item in run.skipped}
    images = [example.path for example in (*run.task.test, *run.task.train)]
    example = next(path for path in images if path not in skipped)
    screen.say(f"Next: {command('predict', out, example)}")
    screen.result(_as_json(run))


def _show_scores(screen: Screen, run: Run, options: FitOptions) -> None:
    """Accuracy and retention, and how far to trust them."""
    from promptot.backbones.first_choice import FIRST_CHOICE, real_clip
    from promptot.cli.result_tables import pairs, score_table
    from promptot.data.catalog.drawings import has_own_images
    from promptot.runs.report.retention_panel import retention_doubt, retention_lines

    if run.scores:
        screen.print(score_table(run.scores))
    else:
        screen.print("No image was left for a test: give a test folder, or --test-share 0.3.")
    other = f"{options.out}-{FIRST_CHOICE.short}"
    instead = {"json_path": None, "overwrite": None, "resume": None, "out": other}
    real = again(options.context, "fit", backbone=FIRST_CHOICE.name, **instead)
    own = has_own_images(example.path for example in run.task.examples)
    note = real_clip(options.backbone, own, real)
    if note is not None:
        screen.say(f"\n[yellow]![/] {note}\n")
    doubt = retention_doubt(run.retention)
    if doubt:
        screen.say(f"[yellow]![/] {doubt}")
    screen.print(pairs(retention_lines(run.retention), title="Retention"), "")


def _show_adapter(screen: Screen, run: Run, options: FitOptions) -> None:
    """Where it lies, what its transport plans were like, and the page."""
    from promptot.runs.run_folder import ADAPTER, REPORT

    adapter = options.out / ADAPTER
    size = sum(path.stat().st_size for path in adapter.iterdir())
    screen.say(
        f"Learnt in {run.seconds:.1f} s. Adapter: [bold]{plain(adapter)}[/] ({size / 1000:.0f} kB)"
    )
    mass = run.log.mean("off_diagonal_mass")
    if mass is not None:
        meaning = ": it did what a point-wise penalty does" if mass < 0.0005 else ""
        screen.say(
            f"Transport plan, mean over steps: {mass:.1%} of the mass off the diagonal, entropy "
            f"{run.log.mean('plan_entropy'):.3f}{meaning}."
        )
    if options.report:
        screen.say(f"Report: [bold]{plain(options.out / REPORT)}[/]")


def _as_json(run: Run) -> dict[str, Any]:
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
        "skipped": [asdict(item) for item in run.skipped],
        "notes": list(run.task.notes),
    }
