"""Running one cell: draw shots, learn from them, test every part, and say so in a record."""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.backbones.library_versions import versions
from promptot.data.loader import Batch
from promptot.data.shot_lists import (
    ShotList,
    read_shot_list,
    shot_list,
    shot_list_name,
    write_shot_list,
)
from promptot.data.task import ImageTask, Progress, no_progress
from promptot.errors import CannotWrite, PromptotError
from promptot.experiments.adapter_store import AdapterStore, Trained
from promptot.experiments.cell_progress import counter, epoch_progress
from promptot.experiments.cell_record import (
    NOT_READ,
    RIGHT,
    WRONG,
    CellRecord,
    PartRecord,
    Training,
)
from promptot.experiments.cells import VERSION, Cell, Fingerprints, fingerprint
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.scenarios import Scenario, Unit
from promptot.experiments.training_views import TrainingViews
from promptot.recipes.templates import teacher_templates
from promptot.runs.draw import select_classes
from promptot.runs.learning import adapt, check_fit
from promptot.training.batches import views_used
from promptot.training.training_log import Log


@dataclass(frozen=True, eq=False)
class Drawn:
    """What the cells of one scenario and seed learn from.

    Attributes:
        scenario: what is trained on and tested.
        shots: the task with the images that were drawn.
        train: the classes of it that are trained on.
        views: augmented views of their images.
        seed: of the draw.
    """

    scenario: Scenario
    shots: ImageTask
    train: ImageTask
    views: TrainingViews
    seed: int

    @functools.cached_property
    def listed(self) -> ShotList:
        """Which images were drawn."""
        return shot_list(self.shots, self.scenario.listed_from, self.scenario.shots, self.seed)


@dataclass(eq=False)
class CellContext:
    """What a process runs cells with: where their images are found, and what is kept of them.

    Attributes:
        scenarios: by unit.
        backbone: on the device to use.
        images: features of the test images.
        cache: folder for views and adapters that several protocols need; None: memory alone.
        shots: folder for the lists of the images that are learnt from; None: none is written.
        workers: processes that load images.
        progress: is told what goes on within a cell.
        adapt: learns what a recipe says.
        check_images: whether to make sure that a cell's images are those that it was made of,
            because it was made in another process.
        untrained: results of methods that learn nothing, by task and method.
        drawn: the shots of the last scenario and seed, which are used again.
    """

    scenarios: Mapping[Unit, Scenario]
    backbone: Backbone
    images: ImageFeatures
    cache: Path | None = None
    shots: Path | None = None
    workers: int = 0
    progress: Progress = no_progress
    adapt: Callable[..., Student] = adapt
    check_images: bool = False
    untrained: dict[tuple[str, str], Result] = field(default_factory=dict)
    drawn: Drawn | None = None
    _prints: Fingerprints = field(default_factory=Fingerprints)
    _checked: set[str] = field(default_factory=set)

    def draw(self, cell: Cell) -> Drawn:
        """The shots of a cell; those of the last scenario and seed are at hand.

        Raises:
            PromptotError: a class has no readable image, the list of them can't be written, or the
                images have changed.
        """
        last = self.drawn
        if last is None or (last.scenario.unit, last.seed) != (cell.unit, cell.seed):
            last = self.drawn = self._draw(cell)
        return last

    def prepare(self, scenario: Scenario, shots: ImageTask, seed: int) -> Drawn:
        """What is learnt from shots that were drawn."""
        train = select_classes(shots, scenario.classes)
        views = TrainingViews(
            self.cache, self.backbone, train, seed, self.workers, self.images.tokens
        )
        return Drawn(scenario, shots, train, views, seed)

    @functools.cached_property
    def adapters(self) -> AdapterStore | None:
        """Trained adapters that are kept."""
        return None if self.cache is None else AdapterStore(self.cache / "adapters", self.backbone)

    def _draw(self, cell: Cell) -> Drawn:
        scenario = self.scenarios[cell.unit]
        if self.check_images and cell.images not in self._checked:
            if fingerprint(scenario, self._prints) != cell.images:
                raise PromptotError(
                    f"The images of '{scenario.task}' have changed.",
                    fix="Run the same command again.",
                )
            self._checked.add(cell.images)
        drawn = self.prepare(scenario, scenario.draw(cell.seed), cell.seed)
        if self.shots is not None:
            path = self.shots / shot_list_name(scenario.task, scenario.shots, cell.seed)
            if not _is_saved(drawn.listed, path):
                write_shot_list(drawn.listed, path)
        return drawn


class Result(NamedTuple):
    """What a record says of a cell that did not fail; see `CellRecord`."""

    parts: dict[str, PartRecord]
    training: Training
    seconds: float


def run_cell(cell: Cell, context: CellContext) -> CellRecord:
    """Learn and test one cell. The record depends on the cell and its images alone.

    A cell that fails (a loss that is not finite, say) has a record with its problem. What learns
    nothing is computed once, whatever the seed and the shots.

    Raises:
        CannotWrite: the next cell could not write either.
        PromptotError: there is nothing to learn from, see `CellContext.draw`.
    """
    record = _manifest(cell, context.backbone, context.draw(cell))
    same = cell.task, cell.method.label
    result = None if cell.method.learns else context.untrained.get(same)
    if result is None:
        try:
            trained = learn_cell(cell, context)
            parts = answer_parts(cell, context, trained.model)
        except CannotWrite:
            raise
        except PromptotError as error:
            return record.model_copy(update={"problem": str(error)})
        result = Result(parts, trained.training, round(trained.seconds, 3))
    if not cell.method.learns:
        context.untrained[same] = result
    return record.model_copy(update=result._asdict())


def learn_cell(cell: Cell, context: CellContext, log: Log | None = None) -> Trained:
    """Learn what the recipe says from the shots of a cell, unless that is kept.

    Args:
        cell: what to learn.
        context: where its images are found.
        log: gets a record a step and an epoch; what is kept has none.

    Raises:
        PromptotError: as `adapt` and `check_fit` raise it.
    """
    scenario, recipe, seed = context.scenarios[cell.unit], cell.method.recipe, cell.seed
    check_fit(recipe, context.backbone)  # before views are computed
    drawn = context.draw(cell)
    train = replace(drawn.train, template=_template(cell, scenario, drawn.train))
    tested = [name for part in scenario.parts.values() for name in part.class_names]
    store = context.adapters
    # Base-to-novel shares with nobody, so nothing is kept.
    keeps = cell.method.learns and scenario.classes == "all" and scenario.place is not None
    place = store.place(cell.method, seed, train, tested) if store and keeps else None
    if store and place and (kept := store.load(place)) is not None:
        return kept
    views = len(train.train) * views_used(recipe)
    loader = drawn.views.loader(recipe, counter(context.progress, "augmenting", views))
    log = log or Log()
    epochs = recipe.evaluate_epoch or recipe.optim.epochs
    began = time.perf_counter()
    model = context.adapt(
        context.backbone,
        train,
        recipe,
        log,
        seed=seed,
        workers=context.workers,
        loader=loader,
        held_out=tested,
        listener=epoch_progress(context.progress, cell.method.label, epochs),
    )
    trained = Trained(model, _training(log), time.perf_counter() - began)
    if store and place:
        store.save(place, cell.method, trained)
    return trained


def answer_parts(cell: Cell, context: CellContext, model: Student) -> dict[str, PartRecord]:
    """Every part of a cell's scenario that the model can answer for."""
    scenario = context.scenarios[cell.unit]
    parts = {}
    for name, part in scenario.parts.items():
        if model.serves(part.class_names):
            template = _template(cell, scenario, part)
            answering = model.for_classes(
                part.class_names,
                teacher_templates(cell.method.recipe.data.templates, template),
                part.synonyms,
            )
            parts[name] = _test(answering, part, context)
    return parts


@torch.no_grad()
def _test(model: Student, part: ImageTask, context: CellContext) -> PartRecord:
    """Accuracy, counts and every answer of a model over the classes of a part."""
    answers = [NOT_READ] * len(part.test)
    text = model.shared_text()
    frozen = not model.adapts_images  # as in `_image_features`
    count = counter(context.progress, f"reading {part.name}", len(part.test))
    for batch in context.images.batches(part.test, count, frozen=frozen):
        logits = model.logits(_image_features(model, batch), text)
        if not logits.isfinite().all():
            raise PromptotError(
                f"Some logits of '{part.name}' are not finite.", fix="Lower optim.lr."
            )
        hits = (logits.argmax(dim=1).cpu() == batch.labels).tolist()
        for place, is_right in zip(batch.indices.tolist(), hits, strict=True):
            answers[place] = RIGHT if is_right else WRONG
    images = len(answers) - answers.count(NOT_READ)
    if images == 0:
        raise PromptotError(
            f"None of the images of '{part.name}' could be read.", fix="Repair the images."
        )
    right = answers.count(RIGHT)
    return PartRecord(
        accuracy=right / images,
        right=right,
        images=images,
        classes=len(part.class_names),
        answers="".join(answers),
    )


def _image_features(model: Student, batch: Batch) -> Tensor:
    """Features of some images [B, D]: the kept ones where no vision prompt changes them."""
    if batch.teacher is not None and not model.adapts_images:
        return batch.teacher.to(model.backbone.device)
    return model.encode_images(batch.images.to(model.backbone.device))


def _manifest(cell: Cell, backbone: Backbone, drawn: Drawn) -> CellRecord:
    """The record of a cell before it has run."""
    return CellRecord(
        cell=cell.key,
        version=VERSION,
        protocol=cell.protocol,
        task=cell.task,
        shots=cell.shots,
        seed=cell.seed,
        split=cell.split,
        method=cell.method.written,
        recipe=cell.method.values(),
        backbone=backbone.weight_hash(),
        identity=backbone.identity().digest,
        train_images=len(drawn.train.train),
        train_classes=len(drawn.train.class_names),
        shot_list=drawn.listed.digest,
        data=drawn.scenario.digest,
        device=str(backbone.device),
        precision=backbone.precision,
        versions=_versions(),
    )


_versions = functools.cache(versions)


def _is_saved(listed: ShotList, path: Path) -> bool:
    """Whether a file holds this list already, and not that of an earlier run, or a damaged one."""
    try:
        return read_shot_list(path) == listed
    except PromptotError:
        return False


def _template(cell: Cell, scenario: Scenario, task: ImageTask) -> str:
    """The sentence that the frozen model reads: of a user's task its own, where it has one.

    Of a public data set the suite decides that for each method.
    """
    if scenario.place is None and task.own_template is not None:
        return task.own_template
    return cell.method.template(task)


def _training(log: Log) -> Training:
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
