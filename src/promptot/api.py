"""The commands as functions: `fit` and `evaluate` on folders of images."""

from __future__ import annotations

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
from promptot.evaluation.scoring import Scores, score
from promptot.recipes import Recipe, load_recipe
from promptot.run import (
    MANIFEST,
    Classes,
    Run,
    evaluation_loader,
    summarise_scores,
)
from promptot.run import fit as fit_task
from promptot.tasks import ImageTask, Skipped, load_folder, split_examples
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
        callbacks: who is told how it goes.

    Raises:
        PromptotError: with what to do about it.
    """
    if not isinstance(recipe, Recipe):
        extra = [] if shots is None else [f"data.shots={shots}"]
        recipe = load_recipe(os.fspath(recipe), [*overrides, *extra])
    task = data
    if not isinstance(task, ImageTask):
        task = load_folder(task, recipe.data.template)
        if test_share > 0:
            task = split_examples(task, seed=0, fractions=(1 - test_share, 0.0, test_share))
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)
    return fit_task(
        task,
        Path(out),
        backbone,
        recipe,
        seed=seed,
        classes=classes,
        workers=workers,
        overwrite=overwrite,
        resume=resume,
        callbacks=callbacks,
    )


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How a run does on a folder.

    Attributes:
        scores: over all class names of the folder under "all classes"; if some of them were not
            trained on, also over "trained classes" and over "other classes" alone.
        skipped: images that could not be read.
        left_out: number of images left out because the run was trained on them.
    """

    scores: dict[str, Scores]
    skipped: tuple[Skipped, ...]
    left_out: int

    def as_json(self) -> dict[str, Any]:
        return {
            "results": summarise_scores(self.scores),
            "images": {name: len(result.labels) for name, result in self.scores.items()},
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

    Images that the run was trained on are left out. The folder's class names need not be those
    of the training.

    Raises:
        PromptotError: with what to do about it.
    """
    classifier = load(run, backbone, pick_device(device), precision)
    task = data if isinstance(data, ImageTask) else load_folder(data, classifier.card.template)
    examples = task.test or (*task.train, *task.validation)
    trained = _trained_on(Path(run))
    fresh = tuple(example for example in examples if _resolve(example.path) not in trained)
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

    scores: dict[str, Scores] = {}
    skipped: dict[str, Skipped] = {}
    for name, part in parts.items():
        if not part.test:
            continue
        loader = evaluation_loader(classifier.model.backbone, part.test, workers)
        model = classifier.model.for_classes(part.class_names)
        done = 0

        def count(images: int, name: str = name, total: int = len(part.test)) -> None:
            nonlocal done
            done += images
            progress(name, done, total)

        scores[name] = score(model, loader, count)
        skipped |= {item.path: item for item in loader.skipped}
    return Evaluation(scores, tuple(skipped.values()), len(examples) - len(fresh))


def _trained_on(run: Path) -> set[str]:
    """Resolved paths of a run's training images; none if it is an adapter without its run."""
    try:
        manifest = json.loads((run / MANIFEST).read_text(encoding="utf-8"))
        return {_resolve(shot["path"]) for shot in manifest["task"]["shots"]}
    except FileNotFoundError:
        return set()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise PromptotError(
            f"'{run / MANIFEST}' is damaged, so the images that were trained on are not known.",
            fix="Evaluate its adapter folder instead, on images that it has not seen.",
        ) from error


def _resolve(path: str) -> str:
    archive, separator, member = path.partition("::")
    return f"{Path(archive).resolve()}{separator}{member}"
