"""A run: from a task and a recipe to a trained adapter in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from promptot.adapter import CARD, TENSORS, save_adapter
from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.files import write_json
from promptot.model import PromptedModel
from promptot.objectives import Objective, build_preservation
from promptot.prompts import build_prompts
from promptot.recipes.loading import describe
from promptot.recipes.schema import Recipe
from promptot.tasks.dataset import Example, ImageTask, Skipped
from promptot.tasks.images import image_hash
from promptot.tasks.loader import ImageLoader
from promptot.tasks.readable import choose_shots
from promptot.training.checkpoint import read_checkpoint
from promptot.training.loop import Callbacks, Loader, train
from promptot.training.records import Log
from promptot.training.views import CachedViews, keep_view

Classes = Literal["base", "novel", "all"]

ADAPTER = "adapter"
CHECKPOINT = "checkpoint.safetensors"
MANIFEST = "manifest.json"
CONTENTS = (ADAPTER, CHECKPOINT, MANIFEST, "steps.csv", "epochs.csv", "report.html")
EVALUATION_BATCH = 32


@dataclass(frozen=True, eq=False)
class Run:
    """What a finished run leaves in memory; its folder holds the same on disk.

    Attributes:
        folder: where everything was written.
        model: prompted with what was learned, over the classes it was trained on.
        task: with the images that were drawn.
        log: a record a step and an epoch.
        scores: on the task's test images, by what was tested: "test", or "base" and "novel".
        skipped: images that could not be read.
        seconds: of training.
    """

    folder: Path
    model: PromptedModel
    task: ImageTask
    log: Log
    scores: dict[str, Scores]
    skipped: tuple[Skipped, ...]
    seconds: float


def fit(
    task: ImageTask,
    out: str | Path,
    backbone: Backbone,
    recipe: Recipe,
    *,
    seed: int = 1,
    classes: Classes = "all",
    workers: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    callbacks: Callbacks | None = None,
) -> Run:
    """Draw shots, train prompts, test them, and write a run folder.

    The folder gets `adapter/`, `steps.csv`, `epochs.csv` and `manifest.json`; while training,
    a checkpoint too.

    Args:
        task: images by split; those to learn from are drawn from its training split.
        out: the run folder.
        backbone: on the device to use.
        classes: which half of the classes to train on, or all.
        workers: processes that load images.
        overwrite: replace a run that is there already.
        resume: go on with an interrupted run.

    Raises:
        PromptotError: the folder holds a run and neither `overwrite` nor `resume` is given; the
            run to resume is another one or there is none; a class has no readable image; the loss
            is not finite; the disk is full.
    """
    folder = Path(out)
    check_run_folder(folder, overwrite, resume)
    if not 0 <= seed < 2**63:
        raise PromptotError(f"The seed {seed} is out of range.", fix="Use one from 0 to 2^63 - 1.")
    drawn = choose_shots(task, recipe.data.shots, seed)
    chosen = select_classes(drawn, classes)
    hashes = [image_hash(example.path) for example in chosen.train]
    identity = {
        "recipe": recipe.model_dump(mode="json"),
        "seed": seed,
        "backbone": backbone.weight_hash(),
        "classes": classes,
        "train": _digest(hashes, chosen),
    }
    if resume:
        _check_same(read_checkpoint(folder / CHECKPOINT).run, identity)
    else:
        _clear(folder)
    manifest = _manifest(identity, drawn, chosen, hashes, backbone, recipe)
    write_json(folder / MANIFEST, manifest)
    callbacks = callbacks or Callbacks()
    if callbacks.on_task is not None:
        callbacks.on_task(chosen)

    log = Log(folder)
    began = time.perf_counter()
    try:
        model = adapt(
            backbone,
            chosen,
            recipe,
            log,
            seed=seed,
            workers=workers,
            checkpoint=folder / CHECKPOINT,
            identity=identity,
            callbacks=callbacks,
        )
    except BaseException:
        if not (folder / CHECKPOINT).exists():  # nothing was learnt, so nothing is left behind
            _clear(folder)
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise
    seconds = time.perf_counter() - began

    parts = {"test": chosen} if classes == "all" else {"base": drawn.base(), "novel": drawn.novel()}
    scores, unreadable = {}, list(drawn.skipped)
    for name, part in parts.items():
        if part.test:
            loader = evaluation_loader(backbone, part.test, workers)
            other = model.for_classes(part.class_names)
            with contextlib.suppress(NothingToScore):  # `skipped` names what could not be read
                scores[name] = score(other, loader)
            unreadable += loader.skipped
    metrics = summarise_scores(scores)
    save_adapter(
        folder / ADAPTER,
        model.prompts,
        backbone,
        chosen.class_names,
        chosen.template,
        recipe=describe(recipe),
        metrics=metrics,
        versions=versions(),
    )
    manifest["results"] = {"seconds": round(seconds, 3), **metrics}
    manifest["task"]["skipped"] = [dataclasses.asdict(item) for item in unreadable]
    write_json(folder / MANIFEST, manifest)
    (folder / CHECKPOINT).unlink(missing_ok=True)
    return Run(folder, model, chosen, log, scores, tuple(unreadable), seconds)


def adapt(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    log: Log,
    *,
    seed: int = 1,
    workers: int = 0,
    loader: Loader | None = None,
    checkpoint: Path | None = None,
    identity: dict[str, Any] | None = None,
    callbacks: Callbacks | None = None,
) -> PromptedModel:
    """Train the prompts of a recipe on a task's training images; the heart of `fit`.

    Args:
        task: its training images are all used.
        loader: gives the batches; by default `training_loader` of the task.
        checkpoint, identity: see `train`.

    Returns:
        the prompted model over the task's classes, on the backbone's device.
    """
    generator = torch.Generator().manual_seed(seed)
    prompts = None
    if recipe.trains:
        prompts = build_prompts(recipe.prompts, backbone, len(task.class_names), generator)
        prompts.to(backbone.device)
    model = PromptedModel(backbone, prompts, task.class_names, task.template)
    if prompts is None:
        return model
    objective = Objective(
        build_preservation(recipe.objective.preservation, **recipe.objective.options()),
        recipe.objective.strength,
    )
    train(
        model,
        objective,
        loader or training_loader(backbone, task, recipe, seed, workers),
        recipe.optim,
        log,
        epochs=recipe.evaluate_epoch,
        checkpoint=checkpoint,
        run=identity,
        callbacks=callbacks or Callbacks(),
    )
    return model


def training_loader(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    seed: int,
    workers: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Loader:
    """Batches of augmented images, or of the patch tokens of kept views if the recipe says so."""
    optim, data = recipe.optim, recipe.data
    transform = backbone.preprocess.train(scale=(data.smallest_crop, 1.0))
    if data.views is None:
        return ImageLoader(
            task.train,
            transform,
            batch_size=optim.batch_size,
            seed=seed,
            shuffle=True,
            drop_last=optim.drop_last,
            workers=workers,
            device=backbone.device,
        )
    loader = ImageLoader(
        task.train, transform, batch_size=EVALUATION_BATCH, seed=seed, workers=workers
    )
    views = [keep_view(backbone, loader.batches(view), progress) for view in range(data.views)]
    return CachedViews(views, optim.batch_size, optim.drop_last, seed)


def evaluation_loader(
    backbone: Backbone, examples: tuple[Example, ...], workers: int = 0
) -> ImageLoader:
    """Images as the backbone wants them for testing, in order."""
    return ImageLoader(
        examples,
        backbone.preprocess.test(),
        batch_size=EVALUATION_BATCH,
        workers=workers,
        device=backbone.device,
        cache_bytes=0,
    )


def select_classes(task: ImageTask, classes: Classes) -> ImageTask:
    """The base classes of a task, the novel ones, or all.

    Raises:
        PromptotError: there are no novel classes because there is only one class.
    """
    if classes == "all":
        return task
    if len(task.class_names) < 2:
        raise PromptotError(
            "One class can't be divided into base and novel.", fix="Use --classes all."
        )
    return task.base() if classes == "base" else task.novel()


def summarise_scores(scores: dict[str, Scores]) -> dict[str, float]:
    """Accuracies of the adapted and the frozen model, flat."""
    flat = {}
    for name, result in scores.items():
        flat[f"{name}_accuracy"] = round(result.student_accuracy, 6)
        flat[f"{name}_zero_shot_accuracy"] = round(result.teacher_accuracy, 6)
    return flat


def versions() -> dict[str, str]:
    """Versions of what the numbers depend on."""
    found = {"python": platform.python_version(), "torch": torch.__version__}
    for package in ("promptot", "torchvision", "timm", "open_clip_torch", "transformers", "pot"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def check_run_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a place where a run can't be written, or would cost what is there.

    Raises:
        PromptotError: it is a file, it holds a run and neither flag is given, or there is no run to
            resume.
    """
    if overwrite and resume:
        raise PromptotError("--overwrite and --resume exclude each other.", fix="Choose one.")
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise PromptotError(f"'{place}' is a file.", fix="Choose another place for the run.")
    foreign = _foreign(folder / ADAPTER)
    if foreign:
        raise PromptotError(
            f"'{folder / ADAPTER}' holds other files than an adapter, such as '{foreign[0]}'.",
            fix="Choose another folder for the run.",
        )
    held = [name for name in CONTENTS if (folder / name).exists()]
    if resume:
        if (folder / ADAPTER).exists():
            raise PromptotError(
                f"The run in '{folder}' is complete.", fix="Use it, or start anew with --overwrite."
            )
        if not (folder / CHECKPOINT).exists():
            raise PromptotError(
                f"There is nothing to resume in '{folder}'.", fix="Start without --resume."
            )
    elif held and not overwrite:
        interrupted = CHECKPOINT in held and ADAPTER not in held
        state = "an interrupted run" if interrupted else "a run"
        go_on = "Go on with it (--resume), replace it" if interrupted else "Replace it"
        raise PromptotError(
            f"'{folder}' already holds {state}.",
            fix=f"{go_on} (--overwrite), or choose another folder.",
        )


def _foreign(adapter: Path) -> list[str]:
    """What lies in an adapter folder that no run has put there."""
    if not adapter.is_dir():
        return []
    return sorted(path.name for path in adapter.iterdir() if path.name not in (CARD, TENSORS))


def _clear(folder: Path) -> None:
    """Remove an old run; only what a run writes, the adapter first."""
    adapter = folder / ADAPTER
    try:
        if adapter.is_dir():
            for name in (CARD, TENSORS):
                (adapter / name).unlink(missing_ok=True)
            adapter.rmdir()
        for name in CONTENTS:
            (folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise PromptotError(
            f"Can't remove the old run in '{folder}': {error.strerror}.",
            fix="Remove it by hand, or choose another folder.",
        ) from error


def _digest(hashes: list[str], task: ImageTask) -> str:
    """What a run learns from, as one hash: the images' bytes, their labels, the class names."""
    lines = [f"{h} {e.label}" for h, e in zip(hashes, task.train, strict=True)]
    return hashlib.sha256("\n".join([*task.class_names, *lines]).encode()).hexdigest()


def _check_same(stored: Any, wanted: dict[str, Any]) -> None:
    names = {
        "recipe": "the recipe or its values",
        "seed": "the seed",
        "backbone": "the backbone",
        "classes": "the classes",
        "train": "the training images",
    }
    differ = [what for key, what in names.items() if stored.get(key) != wanted[key]]
    if differ:
        raise PromptotError(
            f"The interrupted run was started with something else: {', '.join(differ)}.",
            fix="Repeat the arguments it was started with, or start anew with --overwrite.",
        )


def _manifest(
    identity: dict[str, Any],
    drawn: ImageTask,
    chosen: ImageTask,
    hashes: list[str],
    backbone: Backbone,
    recipe: Recipe,
) -> dict[str, Any]:
    return {
        "recipe": describe(recipe),
        "seed": identity["seed"],
        "backbone": {"name": backbone.name, "weight_hash": backbone.weight_hash()},
        "task": {
            "name": drawn.name,
            "classes": identity["classes"],
            "class_names": list(chosen.class_names),
            "template": chosen.template,
            "shots": [
                {
                    "path": example.path,
                    "class_name": chosen.class_names[example.label],
                    "sha256": sha256,
                }
                for example, sha256 in zip(chosen.train, hashes, strict=True)
            ],
            "skipped": [dataclasses.asdict(item) for item in drawn.skipped],
        },
        "device": str(backbone.device),
        "precision": backbone.precision,
        "versions": versions(),
        "platform": platform.platform(),
    }
