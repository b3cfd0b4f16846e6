"""Trials within a time budget, on validation images alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from promptot.backbones import Backbone, load_backbone
from promptot.data.shots import choose_shots
from promptot.data.task import ImageTask, Progress, no_progress
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.experiments.cell_record import Record
from promptot.experiments.cells import VERSION
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.record_file import RecordFile
from promptot.experiments.result_folder import check_result_folder
from promptot.experiments.run_cell import CellContext
from promptot.experiments.scenarios import Scenario
from promptot.experiments.tuning.search import Search, change, check_tunable, next_settings
from promptot.experiments.tuning.trial_points import Point, recommend
from promptot.experiments.tuning.tuning_page import write_tuning_page
from promptot.experiments.tuning.tuning_result import RECIPE, Tuning
from promptot.experiments.tuning.tuning_trial import FIT, NOVEL, TuningTrials
from promptot.experiments.tuning.validation import (
    FEWEST_IMAGES,
    check_validation,
    put_aside,
    validation_images,
)
from promptot.files.writing import write_text
from promptot.recipes import Recipe, load_recipe
from promptot.recipes.recipe_files import Overrides, as_overrides
from promptot.runs.keyword_settings import takes
from promptot.runs.learning import check_fit

TRIALS = "trials.jsonl"
PAGE = "report.html"
PICTURES = ("trade-off.svg", "trade-off.png")
FILES = (TRIALS, RECIPE, PAGE, *PICTURES)

Classes = Literal["all", "base"]


@dataclass(frozen=True)
class TuneSettings:
    """A tuning as it was asked for. Its fields are the arguments of `tune`."""

    data: Any
    out: str | os.PathLike[str]
    budget: float = 600.0
    choose: int | None = None
    backbone: str | Backbone = "bundled:tiny"
    recipe: str | os.PathLike[str] | Recipe = "prompt-ot"
    shots: int | None = None
    classes: Classes = "all"
    validation_share: float = 0.3
    test_share: float = 0.3
    seed: int = 1
    overrides: Overrides = ()
    device: str = "auto"
    precision: str = "fp32"
    workers: int = 0
    progress: Progress = no_progress
    on_task: Callable[[ImageTask], None] = lambda task: None
    on_point: Callable[[int, Point], None] = lambda number, point: None
    search: Search = next_settings
    fewest_images: int = FEWEST_IMAGES
    report: bool = True

    @property
    def folder(self) -> Path:
        """`out` as a path."""
        return Path(self.out)

    def fit_arguments(self, name: str, backbone: str) -> tuple[str, ...]:
        """What `promptot fit` needs to learn from the same images, beside the recipe.

        Args:
            name: of the images where they lie in no file.
            backbone: its name.
        """
        named = isinstance(self.data, str | os.PathLike)
        arguments = [os.fspath(self.data) if named else name]
        arguments += ["--backbone", backbone] if backbone != "bundled:tiny" else []
        arguments += ["--precision", self.precision] if self.precision != "fp32" else []
        arguments += ["--seed", str(self.seed)] if self.seed != 1 else []
        arguments += ["--test-share", f"{self.test_share:g}"] if self.test_share != 0.3 else []
        return tuple(arguments)


@takes(TuneSettings)
def tune(asked: TuneSettings) -> Tuning:
    """Try λ, the depth of the prompts and the learning rate on validation images.

    Each trial trains as `fit` would and is tested on validation images: how many it gets right
    (fit), and how much it keeps of the frozen model (retention). Test images are never read: those
    of a test folder, or those that `fit` would hold out, are put aside first.

    The folder gets `trials.jsonl` (a line a trial; the same call goes on from there),
    `recipe.yaml` of the chosen point, `report.html`, `trade-off.svg` and `trade-off.png`.

    Args:
        data, backbone, recipe, shots, overrides, device, precision, workers, seed: as in `fit`.
        out: the folder.
        budget: seconds for all trials together, those of earlier calls included; the first one is
            always made.
        choose: number of the point to write the recipe of, from 1; None takes the recommended one.
        classes: "all" trains on all classes, and retention is how often the adapted model gives
            the frozen model's answer among anchor words; "base" trains on half of them, and
            retention is the accuracy on the other half.
        validation_share: share of each class for validation, if there is no such folder.
        test_share: as in `fit`; keep them alike.
        progress, on_task, on_point: who is told how it goes, what is trained on, and of each point
            with its number.
        search: what to try next.
        fewest_images: validation images below which no setting can be told from another.
        report: whether to write the page and the pictures.

    Returns:
        all points that were tried, and which of them to choose.

    Raises:
        PromptotError: there are too few validation images, nothing to tune, or no retention to
            measure; a file of other origin would be replaced; with what to do about it.

    Example:
        >>> found = tune("photos", "runs/tuning", budget=600, shots=8)  # doctest: +SKIP
        >>> fit("photos", "runs/photos", recipe=found.recipe_file)  # doctest: +SKIP
    """
    recipe = asked.recipe
    if not isinstance(recipe, Recipe):
        _check_not_replaced(asked.folder, recipe)
        recipe = os.fspath(recipe)
    extra = [] if asked.shots is None else [f"data.shots={asked.shots}"]
    recipe = load_recipe(recipe, [*as_overrides(asked.overrides), *extra])
    check_tunable(recipe)
    check_result_folder(asked.folder, FILES, TRIALS, ("cell", "settings"), "tuning")
    trials = _make_trials(asked, recipe)
    asked.on_task(trials.drawn.train)
    file = RecordFile(asked.folder / TRIALS, Record)
    known = file.read()  # a damaged file is told of before anything is computed
    zero_shot = trials.zero_shot()
    points, finished, ran = _try_settings(asked, trials, file, known)
    chosen = recommend(points)
    if asked.choose is not None:
        if not 1 <= asked.choose <= len(points):
            raise PromptotError(
                f"There is no point {asked.choose}.", fix=f"Choose one from 1 to {len(points)}."
            )
        chosen = asked.choose - 1
        _write_recipe(asked.folder, recipe, points[chosen])
    tuning = Tuning(
        asked.folder,
        trials.drawn.train.name,
        asked.fit_arguments(trials.drawn.train.name, trials.context.backbone.name),
        recipe,
        zero_shot,
        points,
        chosen,
        trials.retention,
        len(trials.fit_part.test),
        sum((point.seconds for point in points), 0.0),
        finished,
        ran,
    )
    if asked.report:
        pictures = [asked.folder / picture for picture in PICTURES]
        write_tuning_page(tuning, asked.folder / PAGE, *pictures)
    return tuning


def _make_trials(asked: TuneSettings, recipe: Recipe) -> TuningTrials:
    """The images to learn from and to test on, and what computes with them.

    Raises:
        PromptotError: there are too few validation images, no such backbone, or the recipe asks
            for a sigmoid that this one can't give.
    """
    task = put_aside(asked.data, recipe, asked.folder, asked.validation_share, asked.test_share)
    drawn = choose_shots(task, recipe.data.shots, asked.seed)
    validation = validation_images(task)
    parts = {FIT: validation}
    if asked.classes == "base":
        parts = {FIT: validation.base(), NOVEL: validation.novel()}
    check_validation(parts[FIT], parts.get(NOVEL), asked.fewest_images)
    backbone = asked.backbone
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(asked.device), asked.precision)
    check_fit(recipe, backbone)
    scenario = Scenario(task.name, task, asked.classes, parts, recipe.data.shots or 0)
    cache = asked.folder / "cache"
    images = ImageFeatures(cache, backbone, asked.workers)
    context = CellContext(
        {scenario.unit: scenario}, backbone, images, cache, None, asked.workers, asked.progress
    )
    context.drawn = context.prepare(scenario, drawn, asked.seed)
    return TuningTrials(context, context.drawn, recipe)


def _try_settings(
    asked: TuneSettings,
    trials: TuningTrials,
    file: RecordFile[Record],
    known: Mapping[str, Record],
) -> tuple[list[Point], bool, int]:
    """Points until all has been tried (then true) or the time is up; how many are new.

    Args:
        asked: how long, and who is told.
        trials: make the points.
        file: gets a line a point.
        known: lines of earlier calls by their keys.
    """
    points: list[Point] = []
    spent, ran = 0.0, 0
    while (settings := asked.search(trials.recipe, trials.layers, points)) is not None:
        key = trials.key(settings)
        if not points and key not in known:
            file.warn_of_old(known, VERSION)
        if key in known:
            point = _read_point(known[key], file.path, len(trials.fit_part.test))
        elif points and spent + median(p.seconds for p in points) > asked.budget:
            return points, False, ran
        else:
            point = trials.run(settings, len(points) + 1)
            ran += 1
            file.append(Record(cell=key, version=VERSION, **dataclasses.asdict(point)))
        points.append(point)
        spent += point.seconds
        asked.on_point(len(points), point)
        _write_recipe(asked.folder, trials.recipe, points[recommend(points)])
    return points, True, ran


def _check_not_replaced(folder: Path, recipe: str | os.PathLike[str]) -> None:
    """Refuse to start from the very file that the chosen recipe will be written to."""
    place = folder / RECIPE
    if place.exists() and Path(recipe).exists() and Path(recipe).samefile(place):
        raise PromptotError(
            f"'{place}' is the recipe to start from, and would be replaced by the tuned one.",
            fix="Choose another --out; or, to go on with a tuning, give the recipe it began with.",
        )


class _Line(BaseModel):
    """What a line says of its point."""

    model_config = ConfigDict(strict=True)

    settings: dict[str, int | float]
    right: Annotated[str, Field(pattern="^[01]+$")]
    retention: Annotated[float, Field(ge=0, le=1)]
    retention_total: int
    seconds: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


def _read_point(record: Record, path: Path, images: int) -> Point:
    """The point of a line, tested on that many images.

    Raises:
        PromptotError: the line is damaged.
    """
    try:
        point = Point(**_Line.model_validate(record.model_dump()).model_dump())
        if len(point.right) != images:
            raise ValueError("it is of other images")
        return point
    except ValueError as error:
        raise PromptotError(
            f"A line of '{path}' is damaged, or of other images.",
            fix="Remove the file, or choose another folder.",
        ) from error


def _write_recipe(folder: Path, recipe: Recipe, point: Point) -> None:
    chosen = change(recipe, dict(point.settings))
    values = chosen.model_dump(mode="json", exclude_none=False)
    if not recipe.name.endswith("-tuned"):
        values["name"] = f"{recipe.name}-tuned"
    write_text(folder / RECIPE, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))
