"""Trials within a time budget, on validation images alone."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any, Literal

import yaml

from promptot.backbones import Backbone, load_backbone
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.evaluation.retention import measure_retention
from promptot.evaluation.scoring import NothingToScore, Scores, score
from promptot.files import write_text
from promptot.model import PromptedModel
from promptot.protocols.kept import KeptImages, KeptViews
from promptot.protocols.results import ResultFile
from promptot.recipes import Recipe, load_recipe
from promptot.run import adapt
from promptot.tasks import ImageTask, load_folder, split_examples
from promptot.tasks.images import image_hash
from promptot.tasks.readable import choose_shots, find_unreadable
from promptot.training.loop import Callbacks
from promptot.training.records import Log
from promptot.tuning.points import Point, pareto_front, recommend
from promptot.tuning.search import DEPTHS, Settings, change, check_tunable, next_settings

TRIALS = "trials.jsonl"
RECIPE = "recipe.yaml"
PAGE = "report.html"
PICTURES = ("trade-off.svg", "trade-off.png")
FEWEST_IMAGES = 8
"""Validation images below which no setting can be told from another."""
FEW_IMAGES = 50

Classes = Literal["all", "base"]
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, eq=False)
class Tuning:
    """What was tried and what to choose.

    Attributes:
        folder: where everything was written.
        name: of the images.
        arguments: what `fit` needs beside the recipe: the images, and what is not its default.
        recipe: to start from.
        zero_shot: the frozen model, for comparison; it can't be chosen.
        points: what was tried, in order.
        chosen: position of the chosen point: the recommended one, unless the caller chose another.
        retention: what the retention is, in a few words.
        validation: number of validation images.
        seconds: of all trials, those of earlier calls included.
        finished: whether everything was tried; otherwise the time was up.
    """

    folder: Path
    name: str
    arguments: tuple[str, ...]
    recipe: Recipe
    zero_shot: Point
    points: list[Point]
    chosen: int
    retention: str
    validation: int
    seconds: float
    finished: bool

    @property
    def recommended(self) -> int:
        return recommend(self.points)

    @property
    def front(self) -> list[int]:
        """Positions of the points that no other one beats."""
        return pareto_front(self.points)

    @property
    def recipe_file(self) -> Path:
        """The chosen recipe, for `fit`."""
        return self.folder / RECIPE

    def as_json(self) -> dict[str, Any]:
        return {
            "points": [point.as_json() for point in self.points],
            "zero_shot": self.zero_shot.as_json(),
            "front": [place + 1 for place in self.front],
            "recommended": self.recommended + 1,
            "chosen": self.chosen + 1,
            "retention": self.retention,
            "validation_images": self.validation,
            "seconds": round(self.seconds, 3),
            "finished": self.finished,
            "recipe": str(self.recipe_file),
        }


def tune(
    data: str | os.PathLike[str] | ImageTask,
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
        progress, on_point: who is told how it goes, and of each point with its number.

    Raises:
        PromptotError: there are too few validation images, nothing to tune, or no retention to
            measure; with what to do about it.
    """
    if not isinstance(recipe, Recipe):
        extra = [] if shots is None else [f"data.shots={shots}"]
        recipe = load_recipe(os.fspath(recipe), [*overrides, *extra])
    check_tunable(recipe)
    folder = Path(out)
    task = _split(data, recipe, folder, validation_share, test_share)
    drawn = choose_shots(task, recipe.data.shots, seed)
    validation = _readable(task)
    train = drawn.base() if classes == "base" else drawn
    fit_part = validation.base() if classes == "base" else validation
    novel_part = validation.novel() if classes == "base" else None
    _check_validation(fit_part, novel_part)
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone, pick_device(device), precision)

    images = KeptImages(folder / "cache", backbone, workers)
    views = KeptViews(folder / "cache", backbone, train, seed, workers)
    trials = _Trials(backbone, recipe, train, fit_part, novel_part, images, views, seed, workers)
    results = ResultFile(folder / TRIALS)
    known = results.read()
    zero_shot = trials.zero_shot()
    points: list[Point] = []
    spent = 0.0
    finished = False
    while True:
        settings = next_settings(recipe, trials.layers, points)
        if settings is None:
            finished = True
            break
        key = trials.key(settings)
        if key in known:
            point = _read_point(known[key], folder / TRIALS)
        elif points and spent + median(p.seconds for p in points) > budget:
            break
        else:
            point = trials.run(settings, progress, len(points) + 1)
            results.append({"cell": key, **dataclasses.asdict(point)})
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
    arguments = [task.name if isinstance(data, ImageTask) else os.fspath(data)]
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
    )
    _write_pages(found)
    return found


@dataclass(frozen=True, eq=False)
class _Trials:
    """What all trials share."""

    backbone: Backbone
    recipe: Recipe
    train: ImageTask
    fit_part: ImageTask
    novel_part: ImageTask | None
    images: KeptImages
    views: KeptViews
    seed: int
    workers: int

    @property
    def layers(self) -> int:
        return max(self.backbone.image_tower.layers, self.backbone.text_tower.layers)

    @property
    def retention(self) -> str:
        if self.novel_part is not None:
            return f"accuracy on {len(self.novel_part.class_names)} held-out classes"
        return "same answer as the frozen model among anchor words"

    def key(self, settings: Settings) -> str:
        """What a trial's figures depend on, as one hash."""
        decides: list[Any] = [self.recipe.model_dump(mode="json"), settings, self.seed]
        decides += [self.backbone.weight_hash(), self.backbone.precision]
        for part in (self.train, self.fit_part, self.novel_part):
            if part is not None:
                examples = part.train if part is self.train else part.test
                decides.append(part.class_names)
                decides += [(image_hash(e.path), e.label) for e in examples]
        return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()

    def zero_shot(self) -> Point:
        """The frozen model as a point."""
        names = self.fit_part.class_names
        frozen = PromptedModel(self.backbone, None, names, self.recipe.data.template)
        return self._point({}, frozen, 0.0)

    def run(self, settings: Settings, progress: Progress, number: int) -> Point:
        """Train and test one setting."""
        began = time.perf_counter()
        recipe = change(self.recipe, settings)
        epochs = recipe.evaluate_epoch or recipe.optim.epochs
        what = f"trial {number}: {describe_settings(settings, self.recipe)}"
        model = adapt(
            self.backbone,
            replace(self.train, template=recipe.data.template),
            recipe,
            Log(),
            seed=self.seed,
            workers=self.workers,
            loader=self.views.loader(recipe),
            held_out=() if self.novel_part is None else self.novel_part.class_names,
            callbacks=Callbacks(on_epoch=lambda record: progress(what, record.epoch, epochs)),
        )
        point = self._point(settings, model, 0.0)
        return replace(point, seconds=time.perf_counter() - began)

    def _point(self, settings: Settings, model: PromptedModel, seconds: float) -> Point:
        scores = self._score(model, self.fit_part)
        right = "".join("1" if r else "0" for r in scores.student.argmax(1) == scores.labels)
        if self.novel_part is not None:
            novel = self._score(model.for_classes(self.novel_part.class_names), self.novel_part)
            return Point(settings, right, novel.student_accuracy, len(novel.labels), seconds)
        names = {"validation": self.fit_part.class_names}
        anchors = measure_retention(model, {"validation": scores}, names).anchors
        if anchors is None or anchors.agreement is None:
            raise PromptotError(
                f"What '{self.recipe.name}' learns says nothing of other words (it is specific to "
                "its classes, or its text depends on the image), so no retention is known.",
                fix="Use --classes base, or another recipe.",
            )
        agreement = anchors.agreement
        return Point(settings, right, agreement.value, agreement.total, seconds)

    def _score(self, model: PromptedModel, part: ImageTask) -> Scores:
        try:
            return score(model, self.images.batches(part.test), keep_features=True)
        except NothingToScore:
            raise PromptotError(
                f"None of the validation images of '{part.name}' could be read.",
                fix="Repair the images.",
            ) from None


def describe_settings(settings: Mapping[str, float | int], recipe: Recipe) -> str:
    """Settings in words.

    Example:
        >>> describe_settings({"objective.strength": 3.0}, load_recipe("prompt-ot"))
        'λ = 3'
        >>> describe_settings({}, load_recipe("prompt-ot"))
        'λ = 10 (as published)'
        >>> depths = {"prompts.text_depth": 2, "prompts.vision_depth": 2}
        >>> describe_settings(depths, load_recipe("ivlp"))
        'depth = 2'
    """
    names = {
        "depth": "depth",
        "objective.strength": "λ",
        "prompts.text_depth": "text depth",
        "prompts.vision_depth": "image depth",
        "optim.lr": "learning rate",
    }
    shown = dict(settings)
    if recipe.objective.preservation != "none" and "objective.strength" not in shown:
        shown = {"objective.strength": recipe.objective.strength, **shown}
    depths = {shown.get(key) for key in DEPTHS}
    if len(depths) == 1 and None not in depths:
        shown = {"depth": shown[DEPTHS[0]], **{k: v for k, v in shown.items() if k not in DEPTHS}}
        shown = {key: shown[key] for key in sorted(shown, key=_place)}
    text = ", ".join(f"{names.get(key, key)} = {value:g}" for key, value in shown.items())
    if settings:
        return text
    return f"{text} (as published)" if text else "as published"


def _place(key: str) -> int:
    return ["objective.strength", "depth", *DEPTHS, "optim.lr"].index(key)


def _split(
    data: str | os.PathLike[str] | ImageTask,
    recipe: Recipe,
    folder: Path,
    validation_share: float,
    test_share: float,
) -> ImageTask:
    """Training and validation images; what is for testing is dropped."""
    if isinstance(data, ImageTask):
        task = data
    else:
        task = load_folder(data, recipe.data.template)
        place = folder.resolve()
        if Path(data).resolve() in (place, *place.parents):
            raise PromptotError(
                f"'{folder}' lies in the image folder '{os.fspath(data)}', where folders are "
                "classes.",
                fix="Choose a place outside it.",
            )
        if test_share > 0:
            task = split_examples(task, seed=0, fractions=(1 - test_share, 0.0, test_share))
    if folder.exists() and not folder.is_dir():
        raise PromptotError(f"'{folder}' is a file.", fix="Choose a folder.")
    task = replace(task, test=())
    if task.validation:
        return task
    return split_examples(task, seed=0, fractions=(1 - validation_share, validation_share, 0.0))


def _readable(task: ImageTask) -> ImageTask:
    """The validation images that can be read, as the images to test on."""
    unreadable = {skipped.path for skipped in find_unreadable(task.validation)}
    kept = tuple(example for example in task.validation if example.path not in unreadable)
    return replace(task, train=(), validation=(), test=kept)


def _check_validation(fit_part: ImageTask, novel_part: ImageTask | None) -> None:
    for what, part in (("", fit_part), ("held-out ", novel_part)):
        if part is None:
            continue
        images = len(part.test)
        present = {example.label for example in part.test}
        missing = [n for label, n in enumerate(part.class_names) if label not in present]
        problem = None
        if images < FEWEST_IMAGES:
            problem = (
                f"There are {images} validation images of {what}classes; on fewer than "
                f"{FEWEST_IMAGES} no setting can be told from another"
            )
        elif missing:
            problem = f"The class '{missing[0]}' has no validation image"
        if problem:
            raise PromptotError(
                f"{problem}.",
                fix="Add images, raise --validation-share, or give a val folder.",
            )


def _read_point(record: Mapping[str, Any], path: Path) -> Point:
    fields = {field.name for field in dataclasses.fields(Point)}
    try:
        point = Point(**{key: value for key, value in record.items() if key in fields})
        point.interval  # noqa: B018 - fails where there are no answers
        return point
    except (TypeError, ValueError, ZeroDivisionError, AttributeError) as error:
        raise PromptotError(
            f"A line of '{path}' is damaged.", fix="Remove the file, or choose another folder."
        ) from error


def _write_recipe(folder: Path, recipe: Recipe, point: Point) -> None:
    chosen = change(recipe, dict(point.settings))
    values = chosen.model_dump(mode="json", exclude_none=False)
    if not recipe.name.endswith("-tuned"):
        values["name"] = f"{recipe.name}-tuned"
    write_text(folder / RECIPE, yaml.safe_dump(values, sort_keys=False, allow_unicode=True))


def _write_pages(found: Tuning) -> None:
    from promptot.pages.tuning import trade_off
    from promptot.reports.trade_off import write_trade_off

    write_trade_off(trade_off(found), found.folder / PAGE, *(found.folder / p for p in PICTURES))
