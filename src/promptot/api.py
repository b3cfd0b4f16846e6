"""The commands as functions: `fit` and `evaluate` on folders of images."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone, load_backbone
from promptot.classifier import load
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.recipes import Recipe, describe, load_recipe
from promptot.run import (
    MANIFEST,
    Classes,
    Run,
    check_run_folder,
    evaluation_loader,
    summarise_scores,
)
from promptot.run import fit as fit_task
from promptot.tasks import Example, ImageTask, Skipped, load_folder, split_examples
from promptot.tasks.images import UnreadableImage, image_hash
from promptot.tracking.tracker import Tracking
from promptot.training.loop import Callbacks

PathLike = str | os.PathLike[str]


def fit(
    data: PathLike | ImageTask,
    out: PathLike,
    *,
    backbone: str | Backbone = "bundled:tiny",
    recipe: str | Recipe = "prompt-ot",
    shots: int | None = None,
    classes: Classes = "all",
    test_share: float = 0.3,
    seed: int = 1,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    overwrite: bool = False,
    resume: bool = False,
    log: Sequence[str] = (),
    callbacks: Callbacks | None = None,
) -> Run:
    """Learn prompts from images, test them beside the frozen model, and write a run folder.

    Args:
        data: a folder of class folders (with or without train/val/test folders above), or a task.
        out: the run folder.
        backbone: a name (see `load_backbone`) or a loaded backbone.
        recipe: a name, a YAML file, or a loaded recipe.
        shots: images per class; by default the recipe's number.
        classes: "all", or one half of them: "base" or "novel".
        test_share: share of each class held out for testing if the folder has no such split;
            which images that are depends on the folder alone, not on the seed.
        seed: of the shots, the start and the order of training.
        overrides: recipe values, such as "optim.lr=0.002".
        device: see `pick_device`; it and `precision` do not touch a loaded backbone.
        precision: see `load_backbone`.
        workers: processes that load images.
        overwrite, resume: what to do if the folder holds a run.
        log: trackers to tell beside the CSV files, which are always written: "tensorboard",
            "wandb", "mlflow". One that fails is named in a warning and never ends the run.
        callbacks: who is told how it goes.

    Raises:
        PromptotError: with what to do about it.
    """
    if not isinstance(recipe, Recipe):
        extra = [] if shots is None else [f"data.shots={shots}"]
        recipe = load_recipe(os.fspath(recipe), [*overrides, *extra])
    if isinstance(data, ImageTask):
        task = data
    else:
        task = load_folder(data, recipe.data.template)
        place = Path(out).resolve()
        if Path(data).resolve() in (place, *place.parents):
            raise PromptotError(
                f"The run folder '{out}' lies in the image folder '{data}', where folders are "
                "classes.",
                fix="Choose a place outside it.",
            )
        if test_share > 0:
            task = split_examples(task, seed=0, fractions=(1 - test_share, 0.0, test_share))
    check_run_folder(Path(out), overwrite, resume)
    tracking = Tracking(log, Path(out))
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)
    settings = {**describe(recipe), "seed": seed, "classes": classes, "backbone": backbone.name}
    tracking.start(
        {**settings, "task": task.name, "precision": backbone.precision, "resumed": resume}
    )
    try:
        run = fit_task(
            task,
            Path(out),
            backbone,
            recipe,
            seed=seed,
            classes=classes,
            workers=workers,
            overwrite=overwrite,
            resume=resume,
            callbacks=tracking.listening(callbacks),
        )
    except BaseException:
        tracking.finish({}, failed=True)
        raise
    tracking.finish(summarise_scores(run.scores))
    return run


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a run does on a folder.

    Attributes:
        scores: over all class names of the folder under "all classes"; if some of them were not
            trained on, also over "trained classes" and over "other classes" alone.
        skipped: images that could not be read.
        left_out: number of images left out because the run was trained on them; None if that is
            not known, for an adapter without its run's manifest.
    """

    scores: dict[str, Scores]
    skipped: tuple[Skipped, ...]
    left_out: int | None

    def as_json(self) -> dict[str, Any]:
        return {
            "results": {name: result.as_json() for name, result in self.scores.items()},
            "left_out": self.left_out,
            "skipped": [{"path": item.path, "reason": item.reason} for item in self.skipped],
        }


def evaluate(
    run: PathLike,
    data: PathLike | ImageTask,
    *,
    backbone: str | Backbone | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Evaluation:
    """Test a run on a folder of class folders: on its test images, or on all if it has no splits.

    Images that the run was trained on are left out: they are known by their bytes, so it does not
    matter where they lie by now. The folder's class names need not be those of the training.

    Raises:
        PromptotError: with what to do about it.
    """
    classifier = load(run, backbone, pick_device(device), precision)
    task = data if isinstance(data, ImageTask) else load_folder(data)
    examples = task.test or (*task.train, *task.validation)
    trained = _trained_on(Path(run))
    fresh = tuple(example for example in examples if not (trained and _is_in(example, trained)))
    if not fresh:
        raise PromptotError(
            f"The run was trained on every image of '{task.name}'.",
            fix="Evaluate on images that it has not seen.",
        )
    known = {name.casefold() for name in classifier.class_names}
    seen = [label for label, name in enumerate(task.class_names) if name.casefold() in known]
    other = [label for label in range(len(task.class_names)) if label not in set(seen)]
    whole = replace(task, train=(), validation=(), test=fresh)
    parts = {"all classes": whole}
    if seen and other:
        parts |= {"trained classes": whole.select(seen), "other classes": whole.select(other)}

    served = {
        name: part
        for name, part in parts.items()
        if part.test and classifier.model.serves(part.class_names)
    }
    if not served:
        classifier.model.for_classes(whole.class_names)  # says which name it can't serve

    scores: dict[str, Scores] = {}
    skipped: dict[str, Skipped] = {}
    for name, part in served.items():
        loader = evaluation_loader(classifier.model.backbone, part.test, workers)
        model = classifier.model.for_classes(part.class_names)
        done = 0

        def count(images: int, name: str = name, total: int = len(part.test)) -> None:
            nonlocal done
            done += images
            progress(name, done, total)

        with contextlib.suppress(NothingToScore):
            scores[name] = score(model, loader, count)
        skipped |= {item.path: item for item in loader.skipped}
    if not scores:
        example = next(iter(skipped.values()))
        raise PromptotError(
            f"None of the {len(fresh)} images of '{task.name}' could be read. For example "
            f"'{example.path}': {example.reason}.",
            fix="Repair the images.",
        )
    left_out = None if trained is None else len(examples) - len(fresh)
    return Evaluation(scores, tuple(skipped.values()), left_out)


def _trained_on(run: Path) -> set[str] | None:
    """Hashes of a run's training images; None if there is no manifest to tell."""
    try:
        manifest = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
        return {str(shot["sha256"]) for shot in manifest["task"]["shots"]}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptotError(
            f"'{run / MANIFEST}' is damaged, so the images that were trained on are not known.",
            fix="Evaluate its adapter folder instead, on images that it has not seen.",
        ) from error


def _is_in(example: Example, hashes: set[str]) -> bool:
    try:
        return image_hash(example.path) in hashes
    except UnreadableImage:
        return False  # it will be named when its turn comes
