"""`fit`: from images wherever they are to a run, in memory or in a folder."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, asdict, dataclass, replace
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone, load_backbone
from promptot.backbones.library_versions import versions
from promptot.data import ImageTask, load_task
from promptot.data.dividing import hold_out
from promptot.data.loader import lost_workers_explained
from promptot.devices import pick_device
from promptot.errors import PromptotError, use_class_names
from promptot.files.reading import PathLike
from promptot.recipes import Recipe, describe, load_recipe
from promptot.recipes.recipe_files import Overrides, as_overrides
from promptot.runs import run_folder
from promptot.runs.adapter import make_adapter
from promptot.runs.draw import Classes, Draw, draw, own_synonyms
from promptot.runs.evaluating import Names, retention_of, score_parts, summarise_scores
from promptot.runs.keyword_settings import takes
from promptot.runs.learning import adapt
from promptot.runs.made_with import MadeWith, read_made_with
from promptot.runs.manifest import LeftOut, Results, find_manifest
from promptot.runs.run import PLAN_FIGURES, Run
from promptot.runs.run_contents import RunContents
from promptot.runs.tracking.tracker import Tracking, open_trackers
from promptot.training.checkpoint import SAVE_SECONDS, read_checkpoint
from promptot.training.listener import Listener, Listeners
from promptot.training.training_log import Log


@dataclass(frozen=True)
class FitSettings:
    """The arguments of `fit` and their defaults; see there."""

    data: Any
    out: PathLike | None = None
    _: KW_ONLY
    class_names: Names | None = None
    template: str | None = None
    keep_same_names: bool = False
    backbone: str | Backbone = "bundled:tiny"
    recipe: str | Path | Recipe = "prompt-ot"
    shots: int | None = None
    strength: float | None = None
    lr: float | None = None
    epochs: int | None = None
    overrides: Overrides = ()
    classes: Classes = "all"
    test_share: float = 0.3
    seed: int = 1
    device: str = "auto"
    precision: str = "fp32"
    workers: int = 0
    overwrite: bool = False
    resume: bool = False
    report: bool = True
    log: Sequence[str] = ()
    save_seconds: float = SAVE_SECONDS
    listener: Listener | None = None
    names: Names | None = None

    def load_recipe(self) -> Recipe:
        """The recipe with all that replaces its values."""
        values = {"objective.strength": self.strength, "optim.lr": self.lr,
                  "optim.epochs": self.epochs, "data.shots": self.shots}  # fmt: skip
        given = {key: value for key, value in values.items() if value is not None}
        return load_recipe(self.recipe, [*as_overrides(self.overrides), *as_overrides(given)])

    def load_task(self, recipe: Recipe) -> ImageTask:
        """The images, with some held out for a test."""
        task = load_task(
            self.data,
            class_names=use_class_names(self.class_names, self.names, stacklevel=6),
            template=self.template,
            keep_same_names=self.keep_same_names,
        )
        if isinstance(self.data, ImageTask):
            return task
        task = replace(task, template=task.own_template or recipe.data.template)
        return hold_out(task, self.test_share)

    def load_backbone(self) -> Backbone:
        """The backbone, on the device to use."""
        if isinstance(self.backbone, Backbone):
            return self.backbone
        return load_backbone(self.backbone, pick_device(self.device), self.precision)


@takes(FitSettings)
def fit(settings: FitSettings) -> Run:
    """Learn prompts from images and test them beside the frozen model.

    With `out` the run is written there, checkpoints too while it trains: it can be interrupted and
    resumed. Without, it is in memory alone; `Run.save` writes it.

    Args:
        data: a folder of class folders (with or without train/val/test folders above), or anything
            else that `load_task` takes: an archive, a table, shards, data sets, arrays.
        out: the run folder; None leaves the run in memory.
        class_names: what the classes are called, and their synonyms; see `load_task`.
        template: the sentence that the frozen model reads, with `{}` for the name; by default the
            task's own, else the recipe's.
        keep_same_names: see `load_task`.
        backbone: a name (see `load_backbone`) or a loaded backbone.
        recipe: a name, a YAML file, or a loaded recipe.
        shots: images per class; by default the recipe's number.
        strength: λ, how strongly what the model knows is preserved; by default the recipe's.
        lr: learning rate; by default the recipe's.
        epochs: how often each image is seen; by default the recipe's.
        overrides: recipe values, as `{"optim": {"lr": 0.002}}` or `["optim.lr=0.002"]`.
        classes: "all", or one half of them: "base" or "novel".
        test_share: share of each class held out for testing if the data have no such split; which
            images that are depends on the data alone, not on the seed. A task is not divided.
        seed: of the shots, the start and the order of training.
        device: "cpu", "cuda", "cuda:1" or "mps"; "auto" is the best there is. It and
            `precision` do not touch a loaded backbone.
        precision: see `load_backbone`.
        workers: processes that load images.
        overwrite: replace a run that is in `out` already; it stays until this one has finished.
        resume: go on with an interrupted run in `out`. One that is complete and was made with the
            same arguments may be resumed: it is returned, tested again.
        report: write `report.html` into `out` too.
        log: trackers to tell beside the CSV files, which are always written: "tensorboard",
            "wandb", "mlflow". One that fails is named in a warning and never ends the run.
        save_seconds: longest time between two checkpoints.
        listener: is told how it goes, see `Listener`.
        names: the former name of `class_names`.

    Returns:
        the run.

    Raises:
        PromptotError: with what to do about it.

    Example:
        >>> run = fit("photos", shots=4, strength=3.0, epochs=5)  # doctest: +SKIP
        >>> run.scores["test"].student_accuracy  # doctest: +SKIP
        >>> run.save("runs/photos").report()  # doctest: +SKIP
    """
    recipe = settings.load_recipe()
    task = settings.load_task(recipe)
    folder = None if settings.out is None else Path(settings.out)
    listener = settings.listener or Listener()
    if folder is None:
        _check_in_memory(settings)
    else:
        if isinstance(settings.data, str | os.PathLike):
            run_folder.check_apart(folder, Path(settings.data))
        run_folder.check_run_folder(folder, settings.overwrite, settings.resume)
        nothing_left = settings.resume and run_folder.is_complete(folder)
        trackers = open_trackers(() if nothing_left else settings.log, folder)
        listener = Listeners(Tracking(trackers), listener)
    backbone = settings.load_backbone()
    listener.on_run_start(
        {
            **describe(recipe),
            "seed": settings.seed,
            "classes": settings.classes,
            "backbone": backbone.name,
            "task": task.name,
            "precision": backbone.precision,
            "resumed": settings.resume,
        }
    )
    told = replace(settings, listener=listener)
    try:
        if folder is None:
            run = _fit_in_memory(task, backbone, recipe, told)
        else:
            run = fit_into(folder, task, backbone, recipe, told)
    except BaseException:
        listener.on_run_end({}, failed=True)
        raise
    listener.on_run_end(summarise_scores(run.scores), failed=False)
    has_page = folder is None or (run.was_complete and (folder / run_folder.REPORT).exists())
    if settings.report and not has_page:
        run.report()
    return run


def _check_in_memory(settings: FitSettings) -> None:
    """Refuse what a run without a folder has no place for."""
    if settings.resume or settings.log:
        what = "Only a run in a folder can be resumed" if settings.resume else "Trackers need a run"
        raise PromptotError(f"{what}.", fix="Give out=, the run folder.")


def _fit_in_memory(
    task: ImageTask, backbone: Backbone, recipe: Recipe, settings: FitSettings
) -> Run:
    with lost_workers_explained():
        drawn = draw(task, backbone, recipe, seed=settings.seed, classes=settings.classes)
        return learn(drawn, workers=settings.workers, listener=settings.listener)


def learn(
    drawn: Draw,
    *,
    workers: int = 0,
    work: Path | None = None,
    save_seconds: float = SAVE_SECONDS,
    listener: Listener | None = None,
) -> Run:
    """Learn from what was drawn, and test it: the one function that all fits share.

    Args:
        workers: processes that load images.
        work: where the manifest, the log and checkpoints go while it trains; training goes on from
            a checkpoint that is there. None keeps everything in memory.
        save_seconds: longest time between two checkpoints.
        listener: who is told how it goes.

    Raises:
        PromptotError: an image can't be read any more, the loss is not finite, or the disk is full.
    """
    manifest = drawn.manifest()
    if work is not None:
        manifest.write(work)
    listener = listener or Listener()
    listener.on_task(drawn.task)
    if listener.hears("on_warning"):
        for sentence in drawn.same_names():
            listener.on_warning(sentence)
    log = Log(work)
    began = time.perf_counter()
    model = adapt(
        drawn.backbone,
        drawn.task,
        drawn.recipe,
        log,
        seed=drawn.made_with.seed,
        workers=workers,
        held_out=drawn.whole.class_names,
        checkpoint=None if work is None else work / run_folder.CHECKPOINT,
        identity=drawn.made_with.model_dump(),
        save_seconds=save_seconds,
        listener=listener,
    )
    seconds = time.perf_counter() - began
    adapter = make_adapter(
        model.learned,
        drawn.backbone,
        drawn.task.class_names,
        model.template,
        synonyms=own_synonyms(drawn.task),
        template_mean=model.template_mean,
        recipe=describe(drawn.recipe),
        versions=versions(),
    )
    run = Run(model, drawn.task, RunContents(adapter, manifest, log), seconds=seconds)
    return _with_results(_tested(run, drawn, workers))


def fit_into(
    folder: Path, task: ImageTask, backbone: Backbone, recipe: Recipe, settings: FitSettings
) -> Run:
    """Learn into a run folder.

    The folder gets `adapter/`, `steps.csv`, `epochs.csv`, `predictions.csv` and `manifest.json`;
    while training, a checkpoint too. Where it holds a run to overwrite, that one stays until this
    one has finished.

    Raises:
        PromptotError: the folder holds a run and neither `overwrite` nor `resume` is set; the run
            to resume is another one or there is none; another process writes there; or as `draw`
            and `learn`.
    """
    overwrite, resume = settings.overwrite, settings.resume
    with run_folder.locked(folder), lost_workers_explained():
        run_folder.complete_replacement(folder)
        run_folder.check_free(folder, overwrite, resume)
        drawn = draw(task, backbone, recipe, seed=settings.seed, classes=settings.classes)
        if resume and run_folder.is_complete(folder):
            _check_complete(folder, drawn.made_with)
            return _read_again(folder, drawn, settings.workers)
        work = run_folder.place_of_work(folder, resume)
        if resume and (work / run_folder.CHECKPOINT).exists():
            _check_same(read_checkpoint(work / run_folder.CHECKPOINT).run, drawn.made_with)
        try:
            run = learn(
                drawn,
                workers=settings.workers,
                work=work,
                save_seconds=settings.save_seconds,
                listener=settings.listener,
            )
            run.write(work)
            run_folder.finish(folder, work)
        except BaseException:
            run_folder.abandon(folder, work)
            raise
    return replace(run, folder=folder)


def _tested(run: Run, drawn: Draw, workers: int) -> Run:
    """A run with its test: scores, retention, and every image that could not be read."""
    parts = drawn.parts()
    found = score_parts(run.model, parts, workers)
    retention = retention_of(run.model, parts, found.scores, workers)
    skipped = (*drawn.whole.skipped, *found.skipped)
    return replace(run, scores=found.scores, skipped=skipped, tested=parts, retention=retention)


def _with_results(run: Run) -> Run:
    """A run with what came of it in its manifest and on its card."""
    metrics, log = summarise_scores(run.scores), run.log
    results: dict[str, Any] = {"seconds": round(run.seconds, 3), **metrics}
    results |= {name: log.mean(name) for name in PLAN_FIGURES}
    results["retention"] = run.retention.as_json()
    if log.skipped:
        results["skipped_steps"] = log.skipped
    manifest = run.manifest.change(
        results=Results(**results),
        task={
            "tested": {name: list(run.tested[name].class_names) for name in run.scores},
            "skipped": [LeftOut(**asdict(item)) for item in run.skipped],
        },
    )
    adapter = run.adapter._replace(card=run.adapter.card.model_copy(update={"metrics": metrics}))
    return replace(run, contents=RunContents(adapter, manifest, log))


def _read_again(folder: Path, drawn: Draw, workers: int) -> Run:
    """A complete run as `fit` returned it, from its folder, tested again.

    Raises:
        PromptotError: its files are damaged, or don't fit the backbone.
    """
    run = Run.from_pretrained(folder, drawn.backbone)
    _ = run.log  # a damaged one is said before anything is tested
    return _tested(replace(run, task=drawn.task, was_complete=True), drawn, workers)


def _check_complete(folder: Path, wanted: MadeWith) -> None:
    """Refuse a complete run that was made with something else, or that does not say with what."""
    try:
        manifest = find_manifest(folder)
    except PromptotError:
        manifest = None
    known = None if manifest is None else read_made_with(manifest.made_with)
    if known is None:
        raise PromptotError(
            f"The run in '{folder}' is complete, and does not note all that it was made with.",
            fix="Use it, or start anew with --overwrite.",
        )
    differ = known.differences(wanted)
    if differ:
        raise PromptotError(
            f"The run in '{folder}' is complete, and was made with something else: "
            f"{', '.join(differ)}.",
            fix="Use it, choose another folder, or start anew with --overwrite.",
        )


def _check_same(stored: Mapping[str, Any], wanted: MadeWith) -> None:
    known = read_made_with(stored)
    if known is None:
        raise PromptotError(
            "The interrupted run was started by another version of promptot, which may have made "
            "something else of the same backbone: it did not note what decides that.",
            fix="Start anew with --overwrite, or go on with that version.",
        )
    differ = known.differences(wanted)
    if differ:
        raise PromptotError(
            f"The interrupted run was started with something else: {', '.join(differ)}.",
            fix="Repeat the arguments it was started with, or start anew with --overwrite.",
        )
