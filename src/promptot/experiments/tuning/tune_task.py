"""Trials within a time budget, on validation images alone."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from promptot.backbones import Backbone, load_backbone
from promptot.data.task import ImageTask
from promptot.data.unreadable import choose_shots
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.experiments.cells import VERSION
from promptot.experiments.result_folder import check_result_folder
from promptot.experiments.results_store import ResultFile, warn_of_old_results
from promptot.experiments.run_cells import Progress
from promptot.experiments.shared_features import KeptImages, KeptViews
from promptot.experiments.tuning.search import change, check_tunable, next_settings
from promptot.experiments.tuning.trial_points import Point, recommend
from promptot.experiments.tuning.tuning_page import write_tuning_page
from promptot.experiments.tuning.tuning_result import RECIPE, Tuning
from promptot.experiments.tuning.tuning_trial import Trials
from promptot.experiments.tuning.validation import check_validation, put_aside, validation_images
from promptot.files.writing import write_text
from promptot.recipes import Recipe, load_recipe

TRIALS = "trials.jsonl"
PAGE = "report.html"
PICTURES = ("trade-off.svg", "trade-off.png")
FILES = (TRIALS, RECIPE, PAGE, *PICTURES)

Classes = Literal["all", "base"]


def tune(
    data: Any,
    out: str | os.PathLike[str],
    *,
    budget: float = 600.0,
    choose: int | None = None,
    backbone: str | Backbone = "bundled:tiny",
    recipe: str | Recipe = "prompt-ot",
    shots: int | None = None,
    classes: Classes = "all",
    validation_share: float = 0.3,
    test_share: float = 0.3,
    seed: int = 1,
    overrides: Sequence[str] = (),
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    progress: Progress = lambda what, done, total: None,
    on_task: Callable[[ImageTask], None] = lambda task: None,
    on_point: Callable[[int, Point], None] = lambda number, point: None,
) -> Tuning:
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

    Raises:
        PromptotError: there are too few validation images, nothing to tune, or no retention to
            measure; a file of other origin would be replaced; with what to do about it.
    """
    folder = Path(out)
    if not isinstance(recipe, Recipe):
        _check_not_replaced(folder, recipe)
        extra = [] if shots is None else [f"data.shots={shots}"]
        recipe = load_recipe(os.fspath(recipe), [*overrides, *extra])
    check_tunable(recipe)
    check_result_folder(folder, FILES, TRIALS, ("cell", "settings"), "tuning")
    task = put_aside(data, recipe, folder, validation_share, test_share)
    drawn = choose_shots(task, recipe.data.shots, seed)
    validation = validation_images(task)
    train = drawn.base() if classes == "base" else drawn
    fit_part = validation.base() if classes == "base" else validation
    novel_part = validation.novel() if classes == "base" else None
    check_validation(fit_part, novel_part)
    on_task(train)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)

    images = KeptImages(folder / "cache", backbone, workers)
    views = KeptViews(folder / "cache", backbone, train, seed, workers)
    trials = Trials(backbone, recipe, train, fit_part, novel_part, images, views, seed, workers)
    results = ResultFile(folder / TRIALS)
    known = results.read()
    zero_shot = trials.zero_shot()
    points: list[Point] = []
    spent, ran = 0.0, 0
    finished = False
    while True:
        settings = next_settings(recipe, trials.layers, points)
        if settings is None:
            finished = True
            break
        key = trials.key(settings)
        if not points and key not in known:
            warn_of_old_results(known, VERSION, folder / TRIALS)
        if key in known:
            point = _read_point(known[key], folder / TRIALS, len(fit_part.test))
        elif points and spent + median(p.seconds for p in points) > budget:
            break
        else:
            point = trials.run(settings, progress, len(points) + 1)
            ran += 1
            results.append({"cell": key, "version": VERSION, **dataclasses.asdict(point)})
        points.append(point)
        spent += point.seconds
        on_point(len(points), point)
        _write_recipe(folder, recipe, points[recommend(points)])
    chosen = recommend(points)
    if choose is not None:
        if not 1 <= choose <= len(points):
            raise PromptotError(
                f"There is no point {choose}.", fix=f"Choose one from 1 to {len(points)}."
            )
        chosen = choose - 1
        _write_recipe(folder, recipe, points[chosen])
    arguments = [os.fspath(data) if isinstance(data, str | os.PathLike) else task.name]
    arguments += ["--backbone", backbone.name] if backbone.name != "bundled:tiny" else []
    arguments += ["--precision", precision] if precision != "fp32" else []
    arguments += ["--seed", str(seed)] if seed != 1 else []
    arguments += ["--test-share", f"{test_share:g}"] if test_share != 0.3 else []
    found = Tuning(
        folder,
        task.name,
        tuple(arguments),
        recipe,
        zero_shot,
        points,
        chosen,
        trials.retention,
        len(fit_part.test),
        spent,
        finished,
        ran,
    )
    _write_pages(found)
    return found


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


def _read_point(record: Mapping[str, Any], path: Path, images: int) -> Point:
    """The point of a line, tested on that many images.

    Raises:
        PromptotError: the line is damaged.
    """
    try:
        point = Point(**_Line.model_validate(record).model_dump())
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


def _write_pages(found: Tuning) -> None:
    write_tuning_page(found, found.folder / PAGE, *(found.folder / p for p in PICTURES))
