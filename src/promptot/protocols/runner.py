"""Running cells: draw shots, adapt, test every part, write a line."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.model import PromptedModel
from promptot.protocols.cells import Cell
from promptot.protocols.kept import KeptImages, KeptViews
from promptot.protocols.results import ResultFile
from promptot.recipes.templates import teacher_templates
from promptot.run import adapt, select_classes
from promptot.tasks.dataset import ImageTask
from promptot.tasks.loader import Batch
from promptot.tasks.readable import choose_shots
from promptot.training.loop import Callbacks
from promptot.training.records import EpochRecord, Log

RIGHT, WRONG, NOT_READ = "1", "0", "-"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Observer:
    """Who is told how it goes.

    Attributes:
        progress: within a cell.
        on_cell: after each cell, with its line, how many are done and how many there are.
    """

    progress: Progress = lambda what, done, total: None
    on_cell: Callable[[Mapping[str, Any], int, int], None] = lambda record, done, total: None


def is_result(record: Mapping[str, Any]) -> bool:
    """Whether a line holds a result, and not the reason why there is none."""
    return "parts" in record


def run_missing(
    cells: Sequence[Cell],
    results: ResultFile,
    backbone: Backbone,
    cache: Path,
    workers: int,
    observer: Observer,
) -> None:
    """Run the cells that have no result yet, in order, and write a line for each.

    A cell that fails (a loss that is not finite, say) gets a line with its problem; it runs again
    the next time.

    Args:
        cells: ordered by trial and seed.
        results: where the lines go.
        backbone: on the device to use.
        cache: folder for test features and views.
        workers: processes that load images.
        observer: who is told.

    Raises:
        PromptotError: the lines can't be written, or a task's images can't be read.
    """
    done = {key for key, record in results.read().items() if is_result(record)}
    finished = sum(cell.key in done for cell in cells)
    images = KeptImages(cache, backbone, workers)
    untrained: dict[tuple[int, str], dict[str, Any]] = {}  # what no seed and no shot changes
    for group in _by_trial_and_seed([cell for cell in cells if cell.key not in done]):
        trial, seed = group[0].trial, group[0].seed
        drawn = choose_shots(trial.pool, trial.shots, seed)
        train = select_classes(drawn, trial.classes)
        views = KeptViews(cache, backbone, train, seed, workers)
        for cell in group:
            record: dict[str, Any] = _describe(cell, backbone, train)
            same = id(trial.parts), cell.method.label
            try:
                found = untrained.get(same) or _run(
                    cell, train, views, images, backbone, workers, observer.progress
                )
                record |= found
                if not cell.method.learns:
                    untrained[same] = found
            except PromptotError as error:
                record["problem"] = str(error)
            results.append(record)
            finished += 1
            observer.on_cell(record, finished, len(cells))


def _by_trial_and_seed(cells: Iterable[Cell]) -> list[list[Cell]]:
    groups: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((id(cell.trial), cell.seed), []).append(cell)
    return list(groups.values())


def _describe(cell: Cell, backbone: Backbone, train: ImageTask) -> dict[str, Any]:
    return {
        "cell": cell.key,
        "protocol": cell.protocol,
        "task": cell.trial.task,
        "shots": cell.trial.shots,
        "seed": cell.seed,
        "split": cell.split,
        "method": cell.method.label,
        "recipe": cell.method.values(),
        "backbone": backbone.weight_hash(),
        "train_images": len(train.train),
        "train_classes": len(train.class_names),
    }


def _run(
    cell: Cell,
    train: ImageTask,
    views: KeptViews,
    images: KeptImages,
    backbone: Backbone,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train and test one cell; what the line says of it."""
    recipe = cell.method.recipe
    views_wanted = len(train.train) * (recipe.data.views or 0)
    loader = views.loader(recipe, _counter(progress, "augmenting", views_wanted))
    log = Log()
    began = time.perf_counter()
    model = adapt(
        backbone,
        replace(train, template=train.own_template or recipe.data.template),
        recipe,
        log,
        seed=cell.seed,
        workers=workers,
        loader=loader,
        held_out=[name for part in cell.trial.parts.values() for name in part.class_names],
        callbacks=_epochs(progress, cell.method.label),
    )
    seconds = time.perf_counter() - began
    parts = {}
    for name, part in cell.trial.parts.items():
        count = _counter(progress, f"reading {part.name}", len(part.test))
        template = teacher_templates(
            recipe.data.templates, part.own_template or recipe.data.template
        )
        tested = _test(model, part, template, images, count)
        if tested is not None:
            parts[name] = tested
    return {"parts": parts, "training": _training(log), "seconds": round(seconds, 3)}


@torch.no_grad()
def _test(
    model: PromptedModel,
    part: ImageTask,
    template: str | tuple[str, ...],
    images: KeptImages,
    count: Callable[[int], None],
) -> dict[str, Any] | None:
    """Accuracy, counts and every answer; None where the model can't answer for these classes."""
    if not model.serves(part.class_names):
        return None
    answers = [NOT_READ] * len(part.test)
    answering = model.for_classes(part.class_names, template, part.synonyms)
    text = answering.shared_text()
    for batch in images.batches(part.test, count):
        logits = answering.logits(_image_features(answering, batch), text)
        if not logits.isfinite().all():
            raise PromptotError(
                f"Some logits of '{part.name}' are not finite.", fix="Lower optim.lr."
            )
        right = (logits.argmax(dim=1).cpu() == batch.labels).tolist()
        for place, is_right in zip(batch.indices.tolist(), right, strict=True):
            answers[place] = RIGHT if is_right else WRONG
    found = len(answers) - answers.count(NOT_READ)
    if found == 0:
        raise PromptotError(
            f"None of the images of '{part.name}' could be read.", fix="Repair the images."
        )
    return {
        "accuracy": answers.count(RIGHT) / found,
        "right": answers.count(RIGHT),
        "images": found,
        "classes": len(part.class_names),
        "answers": "".join(answers),
    }


def _image_features(model: PromptedModel, batch: Batch) -> Tensor:
    """Features of some images [B, D]: the kept ones where no vision prompt changes them."""
    if batch.teacher is not None and not model.prompt_tokens().vision:
        return batch.teacher.to(model.backbone.device)
    return model.encode_images(batch.images.to(model.backbone.device))


def _training(log: Log) -> dict[str, float | None]:
    """The plans' figures over all steps, and the last epoch's means; None: not measured."""
    if not log.steps:
        return {}
    last = {
        name: value
        for name, value in vars(log.epochs[-1]).items()
        if name not in {"epoch", "steps", "seconds", "skipped"}
    }
    plan = {
        name: math.nan if (mean := log.mean(name)) is None else mean
        for name in last
        if name.endswith(("off_diagonal_mass", "plan_entropy"))
    }
    plan["largest_off_diagonal_mass"] = max(step.off_diagonal_mass for step in log.steps)
    found = {"epochs": len(log.epochs), "steps": log.step_count, **last, **plan}
    return {name: value if math.isfinite(value) else None for name, value in found.items()}


def _counter(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(more: int) -> None:
        nonlocal done
        done += more
        progress(what, done, total)

    return count


def _epochs(progress: Progress, label: str) -> Callbacks:
    epochs = 0

    def start(done: int, total: int) -> None:
        nonlocal epochs
        epochs = total

    def epoch(record: EpochRecord) -> None:
        progress(label, record.epoch, epochs)

    return Callbacks(on_start=start, on_epoch=epoch)
