"""Running cells: draw shots, adapt, test every part, write a line."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot.adaptation.student import PromptedModel
from promptot.backbones.backbone import Backbone
from promptot.data.loader import Batch
from promptot.data.shot_lists import (
    ShotList,
    read_shot_list,
    shot_list,
    shot_list_name,
    write_shot_list,
)
from promptot.data.task import ImageTask
from promptot.errors import CannotWrite, PromptotError
from promptot.experiments.adapter_store import KeptAdapters, Trained
from promptot.experiments.cell_locks import Claims
from promptot.experiments.cells import VERSION, Cell
from promptot.experiments.forecast import Forecast
from promptot.experiments.results_store import NewLines, ResultFile
from promptot.experiments.shared_features import KeptImages, KeptViews
from promptot.recipes.templates import teacher_templates
from promptot.runs.run import adapt, select_classes, versions
from promptot.training.batches import views_used
from promptot.training.trainer import Callbacks
from promptot.training.training_log import EpochRecord, Log

RIGHT, WRONG, NOT_READ = "1", "0", "-"

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Observer:
    """Who is told how it goes.

    Attributes:
        progress: within a cell.
        on_cell: after each cell, with its line, how many are done and how many there are.
        on_forecast: before the first cell, with what all of them will cost; None saves the trial
            steps that it takes.
    """

    progress: Progress = lambda what, done, total: None
    on_cell: Callable[[Mapping[str, Any], int, int], None] = lambda record, done, total: None
    on_forecast: Callable[[Forecast], None] | None = None


def is_result(record: Mapping[str, Any]) -> bool:
    """Whether a line holds a result, and not the reason why there is none."""
    return "parts" in record


@dataclass(frozen=True)
class Places:
    """Where a benchmark keeps what it makes.

    Attributes:
        results: the lines.
        cache: folder for test features, views and trained adapters.
        claims: folder for the locks of the cells that run.
        shots: folder for the lists of the images that were learnt from.
    """

    results: ResultFile
    cache: Path
    claims: Path
    shots: Path


def run_missing(
    cells: Sequence[Cell],
    places: Places,
    backbone: Backbone,
    workers: int,
    observer: Observer,
    start: float = 0.0,
) -> None:
    """Run the cells that have no result yet, and write a line for each.

    A cell that fails (a loss that is not finite, say) gets a line with its problem; it runs again
    the next time. Cells that another process runs are left to it.

    Args:
        cells: ordered by trial and seed.
        places: where everything goes.
        backbone: on the device to use.
        workers: processes that load images.
        observer: who is told.
        start: where among the cells to start, in 0..1; the others follow in a circle.

    Raises:
        PromptotError: the lines can't be written, or a task's images can't be read.
    """
    wanted = {cell.key for cell in cells}
    lines = NewLines(places.results)
    done = {key for key, record in lines.read().items() if is_result(record)}
    claims = Claims(places.claims)
    images = KeptImages(places.cache, backbone, workers)
    adapters = KeptAdapters(places.cache / "adapters", backbone)
    untrained: dict[tuple[int, str], dict[str, Any]] = {}  # what no seed and no shot changes
    groups = _by_trial_and_seed([cell for cell in cells if cell.key not in done])
    first = int(start * len(groups))
    for group in (*groups[first:], *groups[:first]):
        learnt_from: _Drawn | None = None
        for cell in group:
            with claims.claim(cell.key) as mine:
                done |= lines.read().keys()
                if not mine or cell.key in done:
                    continue
                if learnt_from is None:
                    learnt_from = _draw(cell, places, backbone, workers)
                record = _describe(cell, backbone, learnt_from)
                same = id(cell.trial.parts), cell.method.label
                try:
                    found = untrained.get(same) or _run(
                        cell, learnt_from, images, adapters, backbone, workers, observer.progress
                    )
                    record |= found
                    if not cell.method.learns:
                        untrained[same] = found
                except CannotWrite:  # nor could the next cell
                    raise
                except PromptotError as error:
                    record["problem"] = str(error)
                places.results.append(record)
                done.add(cell.key)
            observer.on_cell(record, len(done & wanted), len(wanted))


@dataclass(frozen=True, eq=False)
class _Drawn:
    """The images that the cells of one trial and seed learn from."""

    train: ImageTask
    views: KeptViews
    digest: str  # of the shot list


def _draw(cell: Cell, places: Places, backbone: Backbone, workers: int) -> _Drawn:
    trial, seed = cell.trial, cell.seed
    drawn = trial.draw(seed)
    train = select_classes(drawn, trial.classes)
    listed = shot_list(drawn, trial.listed_from, trial.shots, seed)
    path = places.shots / shot_list_name(trial.task, trial.shots, seed)
    if not _is_kept(listed, path):
        write_shot_list(listed, path)
    return _Drawn(train, KeptViews(places.cache, backbone, train, seed, workers), listed.digest)


def _is_kept(listed: ShotList, path: Path) -> bool:
    """Whether a file holds this list already, and not that of an earlier run, or a damaged one."""
    try:
        return read_shot_list(path) == listed
    except PromptotError:
        return False


def _by_trial_and_seed(cells: Iterable[Cell]) -> list[list[Cell]]:
    groups: dict[tuple[int, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((id(cell.trial), cell.seed), []).append(cell)
    return list(groups.values())


def _describe(cell: Cell, backbone: Backbone, drawn: _Drawn) -> dict[str, Any]:
    """The line of a cell before it has run: its manifest."""
    train = drawn.train
    return {
        "cell": cell.key,
        "protocol": cell.protocol,
        "task": cell.trial.task,
        "shots": cell.trial.shots,
        "seed": cell.seed,
        "split": cell.split,
        "method": cell.method.written,
        "recipe": cell.method.values(),
        "version": VERSION,
        "backbone": backbone.weight_hash(),
        "identity": backbone.identity().digest,
        "train_images": len(train.train),
        "train_classes": len(train.class_names),
        "shot_list": drawn.digest,
        "data": cell.trial.digest,
        "device": str(backbone.device),
        "precision": backbone.precision,
        "versions": _versions(),
    }


_versions = functools.cache(versions)


def _run(
    cell: Cell,
    drawn: _Drawn,
    images: KeptImages,
    adapters: KeptAdapters,
    backbone: Backbone,
    workers: int,
    progress: Progress,
) -> dict[str, Any]:
    """Train and test one cell; what the line says of it."""
    train = replace(drawn.train, template=_template(cell, drawn.train))
    trained = adapters.load(cell, train)
    if trained is None:
        trained = _train(cell, train, drawn.views, backbone, workers, progress)
        adapters.save(cell, train, trained)
    parts = {}
    for name, part in cell.trial.parts.items():
        count = _counter(progress, f"reading {part.name}", len(part.test))
        template = teacher_templates(cell.method.recipe.data.templates, _template(cell, part))
        tested = _test(trained.model, part, template, images, count)
        if tested is not None:
            parts[name] = tested
    return {"parts": parts, "training": trained.training, "seconds": round(trained.seconds, 3)}


def _template(cell: Cell, task: ImageTask) -> str:
    """The sentence that the frozen model reads: of a user's task its own, where it has one.

    Of a public data set the suite decides that for each method.
    """
    if cell.trial.place is None and task.own_template is not None:
        return task.own_template
    return cell.method.template(task)


def _train(
    cell: Cell,
    train: ImageTask,
    views: KeptViews,
    backbone: Backbone,
    workers: int,
    progress: Progress,
) -> Trained:
    recipe = cell.method.recipe
    views_wanted = len(train.train) * views_used(recipe)
    loader = views.loader(recipe, _counter(progress, "augmenting", views_wanted))
    log = Log()
    began = time.perf_counter()
    model = adapt(
        backbone,
        train,
        recipe,
        log,
        seed=cell.seed,
        workers=workers,
        loader=loader,
        held_out=[name for part in cell.trial.parts.values() for name in part.class_names],
        callbacks=_epochs(progress, cell.method.label),
    )
    return Trained(model, _training(log), time.perf_counter() - began)


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
    frozen = not model.adapts_images  # as in `_image_features`
    for batch in images.batches(part.test, count, frozen=frozen):
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
    if batch.teacher is not None and not model.adapts_images:
        return batch.teacher.to(model.backbone.device)
    return model.encode_images(batch.images.to(model.backbone.device))


def _training(log: Log) -> dict[str, float | None]:
    """The plans' figures over all steps, and the last epoch's means; None: not measured."""
    if not log.steps:
        return {}
    last = {
        name: value
        for name, value in vars(log.epochs[-1]).items()
        if name not in {"epoch", "steps", "seconds", "skipped", "largest_off_diagonal_mass"}
    }
    plan = {
        name: math.nan if (mean := log.mean(name)) is None else mean
        for name in last
        if name.endswith(("off_diagonal_mass", "plan_entropy"))
    }
    largest = log.largest_off_diagonal_mass
    plan["largest_off_diagonal_mass"] = math.nan if largest is None else largest
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
