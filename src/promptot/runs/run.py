"""A run: from a task and a recipe to a trained adapter in a folder."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import torch

from promptot.adaptation import build_prompts
from promptot.adaptation.linear_head import LinearHead, fit_linear_probe
from promptot.adaptation.student import PromptedModel
from promptot.backbones.backbone import Backbone
from promptot.data.anchor_words import load_vocabulary
from promptot.data.catalog.drawings import load_bundled_sample
from promptot.data.class_names import check_task_names
from promptot.data.loader import lost_workers_explained
from promptot.data.name_warnings import same_tokens, same_tokens_sentence
from promptot.data.task import ImageTask, Skipped
from promptot.data.unreadable import choose_shots
from promptot.errors import PromptotError
from promptot.evaluation.predictions import write_predictions
from promptot.evaluation.retention import Retention, measure_retention
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.files.reading import Unreadable, read_json
from promptot.files.writing import write_json
from promptot.objectives import Objective, build_control, build_preservation, build_vocabulary
from promptot.recipes.recipe_files import describe
from promptot.recipes.schema import Recipe
from promptot.recipes.templates import teacher_templates
from promptot.runs.adapter import BackboneIdentity, build_model, load_adapter, save_adapter
from promptot.runs.run_folder import (
    ADAPTER,
    CHECKPOINT,
    MANIFEST,
    PREDICTIONS,
    abandon,
    check_free,
    check_run_folder,
    complete_replacement,
    finish,
    is_complete,
    locked,
    place_of_work,
)
from promptot.training.anchors import AnchorDraws
from promptot.training.averaging import build_averaging
from promptot.training.batches import (
    evaluation_loader,
    frozen_features,
    training_loader,
    views_bytes,
    views_used,
)
from promptot.training.checkpoint import CheckpointFile, read_checkpoint
from promptot.training.coverage import Ordered, coverage
from promptot.training.estimate import GIB, available_bytes
from promptot.training.listener import Listener
from promptot.training.train_student import train
from promptot.training.trainer import Loader
from promptot.training.training_log import Log

__all__ = [
    "ADAPTER",
    "CHECKPOINT",
    "MADE_WITH",
    "MANIFEST",
    "PLAN_FIGURES",
    "Classes",
    "Run",
    "adapt",
    "build_objective",
    "check_run_folder",
    "fit",
    "select_classes",
    "summarise_scores",
    "versions",
]

Classes = Literal["base", "novel", "all"]

SCHEME = 2
"""Of what a run to resume is known by. 1 (not noted) knew the backbone by its weights alone."""
OTHER_DRAWINGS = 160
"""Drawings that a run on a bundled model is tested on for what it still knows."""
PLAN_FIGURES = (
    "off_diagonal_mass",
    "plan_entropy",
    "vocabulary_off_diagonal_mass",
    "vocabulary_plan_entropy",
)
"""What is said of every run's transport plans, as means over its steps; null without a plan."""


@dataclass(frozen=True, eq=False)
class Run:
    """What a finished run leaves in memory; its folder holds the same on disk.

    Attributes:
        folder: where everything was written.
        model: prompted with what was learned, over the classes it was trained on.
        task: with the images that were drawn.
        log: a record a step and an epoch.
        scores: on the task's test images, by what was tested: "test", or "base" and "novel" (not
            "novel" where what was learned serves its own classes only).
        tested: the class names and test images of each of these.
        retention: how far the model moved beyond these classes.
        skipped: images that could not be read.
        seconds: of training.
        was_complete: the folder held this run already, made with the same arguments, and it was
            to be resumed: it was read and tested again, and nothing was written.
    """

    folder: Path
    model: PromptedModel
    task: ImageTask
    log: Log
    scores: dict[str, Scores]
    skipped: tuple[Skipped, ...]
    seconds: float
    tested: dict[str, ImageTask] = field(default_factory=dict)
    retention: Retention = field(default_factory=Retention)
    was_complete: bool = False


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
    callbacks: Listener | None = None,
) -> Run:
    """Draw shots, learn from them what the recipe says, test it, and write a run folder.

    The folder gets `adapter/`, `steps.csv`, `epochs.csv`, `predictions.csv` and `manifest.json`;
    while training, a checkpoint too. Where it holds a run to overwrite, that one stays until this
    one has finished.

    Args:
        task: images by split; those to learn from are drawn from its training split.
        out: the run folder.
        backbone: on the device to use.
        classes: which half of the classes to train on, or all.
        workers: processes that load images.
        overwrite: replace a run that is there already.
        resume: go on with an interrupted run; one that is complete is read and tested again.

    Raises:
        PromptotError: the folder holds a run and neither `overwrite` nor `resume` is given; the
            run to resume is another one or there is none; another process writes there; a class
            has no readable image, or one can't be read any more; the loss is not finite; the disk
            is full.
    """
    folder = Path(out)
    check_run_folder(folder, overwrite, resume)
    with locked(folder), lost_workers_explained():
        complete_replacement(folder)
        check_free(folder, overwrite, resume)
        if not 0 <= seed < 2**63:
            raise PromptotError(
                f"The seed {seed} is out of range.", fix="Use one from 0 to 2^63 - 1."
            )
        drawn = choose_shots(task, recipe.data.shots, seed)
        chosen = select_classes(drawn, classes)
        check_task_names(chosen.class_names, keep=chosen.same_names)
        hashes = [example.hash() for example in chosen.train]
        identity = {
            "scheme": SCHEME,
            "recipe": _what_shapes_it(recipe),
            "seed": seed,
            "backbone": backbone.identity().digest,
            "classes": classes,
            "train": _digest([*_names_of(chosen), *_labelled(hashes, chosen)]),
            "vocabulary": _digest(_anchor_words(recipe, chosen.class_names, drawn.class_names)),
        }
        if resume and is_complete(folder):
            _check_complete(folder, identity)
            return _read_again(folder, drawn, chosen, backbone, classes, workers)
        work = place_of_work(folder, resume)
        if resume and (work / CHECKPOINT).exists():
            _check_same(read_checkpoint(work / CHECKPOINT).run, identity)
        try:
            manifest = _manifest(identity, drawn, chosen, hashes, backbone, recipe)
            write_json(work / MANIFEST, manifest)
            callbacks = callbacks or Listener()
            callbacks.on_task(chosen)
            _warn_of_names(backbone, drawn, callbacks)
            log = Log(work)
            began = time.perf_counter()
            model = adapt(
                backbone,
                chosen,
                recipe,
                log,
                seed=seed,
                workers=workers,
                held_out=drawn.class_names,
                checkpoint=work / CHECKPOINT,
                identity=identity,
                callbacks=callbacks,
            )
            seconds = time.perf_counter() - began

            parts, scores, unreadable = _test(model, drawn, chosen, classes, workers)
            metrics = summarise_scores(scores)
            retention = retention_of(model, parts, scores, workers)
            plan = {name: log.mean(name) for name in PLAN_FIGURES}
            manifest["results"] = {"seconds": round(seconds, 3), **metrics, **plan}
            manifest["results"]["retention"] = retention.as_json()
            if log.skipped:
                manifest["results"]["skipped_steps"] = log.skipped
            manifest["task"]["tested"] = {name: list(parts[name].class_names) for name in scores}
            manifest["task"]["skipped"] = [dataclasses.asdict(item) for item in unreadable]
            write_predictions(work / PREDICTIONS, parts, scores)
            write_json(work / MANIFEST, manifest)
            save_adapter(
                work / ADAPTER,
                model.learned,
                backbone,
                chosen.class_names,
                model.template,
                synonyms=own_synonyms(chosen),
                template_mean=model.template_mean,
                recipe=describe(recipe),
                metrics=metrics,
                versions=versions(),
            )
            finish(folder, work)
        except BaseException:
            abandon(folder, work)
            raise
    return Run(folder, model, chosen, log, scores, tuple(unreadable), seconds, parts, retention)


def _read_again(
    folder: Path,
    drawn: ImageTask,
    chosen: ImageTask,
    backbone: Backbone,
    classes: Classes,
    workers: int,
) -> Run:
    """A complete run as `fit` returned it, from its folder, tested again.

    Raises:
        PromptotError: its files are damaged, or don't fit the backbone.
    """
    card, learned = load_adapter(folder / ADAPTER)
    model = build_model(card, learned, backbone)
    log = Log(folder)
    log.restore()
    parts, scores, unreadable = _test(model, drawn, chosen, classes, workers)
    retention = retention_of(model, parts, scores, workers)
    seconds = _manifest_of(folder).get("results", {}).get("seconds", 0.0)
    left_out = tuple(unreadable)
    return Run(folder, model, chosen, log, scores, left_out, seconds, parts, retention, True)


def _test(
    model: PromptedModel, drawn: ImageTask, chosen: ImageTask, classes: Classes, workers: int
) -> tuple[dict[str, ImageTask], dict[str, Scores], list[Skipped]]:
    """What is tested, scores of what can be, and every image that could not be read so far."""
    parts = {"test": chosen} if classes == "all" else {"base": drawn.base(), "novel": drawn.novel()}
    scores, unreadable = {}, list(drawn.skipped)
    for name, part in parts.items():
        if part.test and model.serves(part.class_names):
            loader = evaluation_loader(model.backbone, part.test, workers)
            other = model.for_classes(part.class_names, synonyms=part.synonyms)
            with contextlib.suppress(NothingToScore):  # `skipped` names what could not be read
                scores[name] = score(other, loader, keep_features=True)
            unreadable += loader.skipped
    return parts, scores, unreadable


def retention_of(
    model: PromptedModel,
    tested: Mapping[str, ImageTask],
    scores: Mapping[str, Scores],
    workers: int = 0,
) -> Retention:
    """How far a model moved beyond the classes that it was tested on.

    A bundled model is also tested on drawings of other things, because these are at hand.

    Args:
        tested: the class names of each part.
        scores: of each part, with features.
    """
    names = {name: part.class_names for name, part in tested.items()}
    others = None
    if model.backbone.name.startswith("bundled:"):
        known = [*model.class_names, *(name for own in names.values() for name in own)]
        drawings = load_bundled_sample(known, OTHER_DRAWINGS)
        if drawings.test and model.serves(drawings.class_names):
            loader = evaluation_loader(model.backbone, drawings.test, workers)
            others = score(model.for_classes(drawings.class_names), loader)
    return measure_retention(model, scores, names, others=others)


def _what_shapes_it(recipe: Recipe) -> dict[str, Any]:
    """The recipe, but for what a run may be resumed without: what to do about a bad batch."""
    values = recipe.model_dump(mode="json")
    values["optim"].pop("on_nonfinite")
    return values


def adapt(
    backbone: Backbone,
    task: ImageTask,
    recipe: Recipe,
    log: Log,
    *,
    seed: int = 1,
    workers: int = 0,
    loader: Loader | None = None,
    held_out: Sequence[str] = (),
    checkpoint: Path | None = None,
    identity: dict[str, Any] | None = None,
    callbacks: Listener | None = None,
) -> PromptedModel:
    """Learn from a task's training images what a recipe says; the heart of `fit`.

    Args:
        task: its training images are all used; its validation images only by a linear probe, to
            choose its penalty.
        loader: gives the batches that prompts are trained on; by default `training_loader` of the
            task. A linear probe is fitted to the images as they are for testing instead.
        held_out: names of classes that will be new in a test; the anchor words that ship are used
            without them. Words from a file of the user's are used as they are.
        checkpoint, identity: see `CheckpointFile`.
        callbacks: hears how it goes.

    Returns:
        the model over the task's classes, on the backbone's device.
    """
    names, listener = task.class_names, callbacks or Listener()
    templates = teacher_templates(recipe.data.templates, task.template)
    if recipe.probes or not recipe.trains:
        return PromptedModel(
            backbone,
            None,
            names,
            templates,
            head=_fit_probe(backbone, task, seed, workers) if recipe.probes else None,
            synonyms=task.synonyms,
            template_mean=recipe.data.template_mean,
        )
    model = _untrained(backbone, names, recipe, templates, seed, held_out, task.synonyms)
    vocabulary = model.vocabulary
    if loader is None:
        _tell_of_views(backbone, len(task.train), recipe, listener)
        loader = training_loader(backbone, task, recipe, seed, workers)
    epochs = recipe.evaluate_epoch or recipe.optim.epochs
    _warn_of_dropped(loader, task, epochs, listener)
    per_step = recipe.vocabulary.per_step
    train(
        model,
        build_objective(recipe, steps=epochs * len(loader)),
        loader,
        recipe.optim,
        log,
        epochs=epochs,
        averaging=build_averaging(recipe.ensembling, epochs),
        anchors=AnchorDraws(len(vocabulary), per_step, seed) if vocabulary else None,
        checkpoint=None if checkpoint is None else CheckpointFile(checkpoint, identity or {}),
        images=[example.path for example in task.train],
        listener=listener,
    )
    return model


def _warn_of_names(backbone: Backbone, task: ImageTask, listener: Listener) -> None:
    """Say which names are one text to the backbone's tokenizer."""
    if not listener.hears("on_warning"):
        return
    encode = backbone.tokenizer.encode
    for pair in same_tokens(task.class_names, encode, task.synonyms, task.template):
        listener.on_warning(same_tokens_sentence(*pair))


def _warn_of_dropped(loader: Loader, task: ImageTask, epochs: int, listener: Listener) -> None:
    """Say which images and classes the steps will not see."""
    if not (listener.hears("on_warning") and isinstance(loader, Ordered)):
        return
    said = coverage(loader, task, epochs).sentence()
    if said:
        listener.on_warning(said)


def _tell_of_views(backbone: Backbone, images: int, recipe: Recipe, listener: Listener) -> None:
    """Say what fixed views will take; refuse what does not fit into memory."""
    if recipe.data.views is None:
        return
    needed = views_bytes(backbone, images, recipe)
    free = available_bytes(torch.device("cpu"))
    if needed > free:
        raise PromptotError(
            f"{views_used(recipe)} views of {images} images need {needed / GIB:.1f} GiB of memory; "
            f"{free / GIB:.1f} GiB are there.",
            fix="Lower data.views, or keep features alone: data.teacher=cached-views.",
        )
    listener.on_views(views_used(recipe), images, needed)


def _untrained(
    backbone: Backbone,
    names: tuple[str, ...],
    recipe: Recipe,
    templates: str | tuple[str, ...],
    seed: int,
    held_out: Sequence[str],
    synonyms: Mapping[str, tuple[str, ...]],
) -> PromptedModel:
    generator = torch.Generator().manual_seed(seed)
    prompts = build_prompts(recipe.prompts, backbone, len(names), generator).to(backbone.device)
    vocabulary = _anchor_words(recipe, names, held_out)
    return PromptedModel(
        backbone,
        prompts,
        names,
        templates,
        vocabulary,
        synonyms=synonyms,
        template_mean=recipe.data.template_mean,
    )


def trial_model(backbone: Backbone, names: tuple[str, ...], recipe: Recipe) -> PromptedModel:
    """A model as a recipe that trains starts it, to find out what a step costs."""
    templates = teacher_templates(recipe.data.templates, recipe.data.template)
    return _untrained(backbone, names, recipe, templates, 0, (), {})


def trial_step(model: PromptedModel, recipe: Recipe) -> float:
    """Seconds of one forward and backward pass over a batch of noise; nothing learns."""
    count, side = recipe.optim.batch_size, model.backbone.preprocess.resolution
    noise = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = noise.to(model.backbone.device)
    labels = torch.arange(count, device=images.device) % len(model.class_names)
    objective = build_objective(recipe, steps=1)
    words = len(model.vocabulary)
    per_step = recipe.vocabulary.per_step or words
    anchors = AnchorDraws(words, per_step, 0) if words else None
    teacher = model.backbone.encode_image(images) if recipe.data.views is not None else None
    marks = []
    for step in (1, 2, 3):  # the first one warms up
        read = None if anchors is None else anchors.positions(1, step)
        student, frozen = model(images, teacher, read)
        result = objective(student, frozen, labels, model.backbone.logit_scale)
        result.total.backward()
        result.total.item()  # waits for the device
        marks.append(time.perf_counter())
        model.zero_grad()
    return (marks[-1] - marks[0]) / 2


def build_objective(recipe: Recipe, steps: int) -> Objective:
    """The objective of a recipe, for a run of so many steps."""
    kept, words = recipe.objective, recipe.vocabulary
    return Objective(
        build_preservation(kept.preservation, **kept.options()),
        kept.strength,
        vocabulary=build_vocabulary(words.comparison, **words.options()),
        vocabulary_strength=words.strength,
        control=build_control(kept.control, steps=steps, budget=kept.budget),
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


def check_apart(out: Path, data: Path) -> None:
    """Refuse an output folder inside a folder of images."""
    place = out.resolve()
    if data.is_dir() and data.resolve() in (place, *place.parents):
        raise PromptotError(
            f"The run folder '{out}' lies in the image folder '{data}', where folders are classes.",
            fix="Choose a place outside it.",
        )


def _anchor_words(
    recipe: Recipe, class_names: Sequence[str], held_out: Sequence[str]
) -> tuple[str, ...]:
    """The words that the recipe's vocabulary term draws from; none without that term."""
    config = recipe.vocabulary
    if not recipe.trains or config.comparison == "none":
        return ()
    if config.words is not None:
        return load_vocabulary(Path(config.words), exclude=class_names)
    return load_vocabulary(exclude=[*class_names, *held_out])


def _fit_probe(backbone: Backbone, task: ImageTask, seed: int, workers: int) -> LinearHead:
    """A linear classifier of the frozen features of a task's training images."""
    head = fit_linear_probe(
        *frozen_features(backbone, task.train, workers),
        classes=len(task.class_names),
        validation=frozen_features(backbone, task.validation, workers),
        seed=seed % 2**32,
    )
    return head.to(backbone.device)


def own_synonyms(task: ImageTask) -> dict[str, tuple[str, ...]]:
    """The synonyms of a task's classes, and of no others."""
    return {name: task.synonyms[name] for name in task.class_names if name in task.synonyms}


def _names_of(task: ImageTask) -> list[str]:
    """Class names, with their synonyms where there are any."""
    return ["\t".join([name, *task.synonyms.get(name, ())]) for name in task.class_names]


def _labelled(hashes: list[str], task: ImageTask) -> list[str]:
    """The training images' bytes and labels, a line each."""
    return [f"{h} {e.label}" for h, e in zip(hashes, task.train, strict=True)]


def _digest(lines: Sequence[str]) -> str:
    """What a run learns from, as one hash."""
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


MADE_WITH = "made_with"
"""In the manifest: what a run is known by, as in its checkpoints."""
_PARTS = {
    "recipe": "the recipe or its values",
    "seed": "the seed",
    "backbone": "the backbone, its precision or what it does with images and text",
    "classes": "the classes",
    "train": "the training images",
    "vocabulary": "the anchor words",
}


def _check_complete(folder: Path, wanted: dict[str, Any]) -> None:
    """Refuse a complete run that was made with something else, or that does not say with what."""
    known = _manifest_of(folder).get(MADE_WITH)
    if not isinstance(known, dict) or known.get("scheme") != SCHEME:
        raise PromptotError(
            f"The run in '{folder}' is complete, and does not note all that it was made with.",
            fix="Use it, or start anew with --overwrite.",
        )
    differ = [what for key, what in _PARTS.items() if known.get(key) != wanted[key]]
    if differ:
        raise PromptotError(
            f"The run in '{folder}' is complete, and was made with something else: "
            f"{', '.join(differ)}.",
            fix="Use it, choose another folder, or start anew with --overwrite.",
        )


def _manifest_of(folder: Path) -> dict[str, Any]:
    """What a run's folder says of it; empty where there is no manifest, or a damaged one."""
    try:
        found = read_json(folder / MANIFEST)
    except Unreadable:
        return {}
    return found if isinstance(found, dict) else {}


def _check_same(stored: Any, wanted: dict[str, Any]) -> None:
    known = stored if isinstance(stored, dict) else {}
    if known.get("scheme", 1) != SCHEME:
        raise PromptotError(
            "The interrupted run was started by another version of promptot, which may have made "
            "something else of the same backbone: it did not note what decides that.",
            fix="Start anew with --overwrite, or go on with that version.",
        )
    differ = [what for key, what in _PARTS.items() if known.get(key) != wanted[key]]
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
        "backbone": {
            **BackboneIdentity.of(backbone).model_dump(),
            "identity": identity["backbone"],
        },
        "task": {
            "name": drawn.name,
            "classes": identity["classes"],
            "class_names": list(chosen.class_names),
            "template": teacher_templates(recipe.data.templates, chosen.template),
            "synonyms": {name: list(others) for name, others in own_synonyms(chosen).items()},
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
        MADE_WITH: identity,
        "device": str(backbone.device),
        "precision": backbone.precision,
        "versions": versions(),
        "platform": platform.platform(),
    }
