"""What a benchmark will cost, told before it starts: a few timed steps, and how often they come."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from promptot.adaptation.build_prompts import changes_images
from promptot.backbones.backbone import Backbone
from promptot.data.images.read_image import UnreadableImage
from promptot.errors import PromptotError
from promptot.experiments.cells import Cell
from promptot.experiments.methods import Method
from promptot.experiments.scenarios import Scenario, Unit
from promptot.recipes.schema import Recipe
from promptot.runs.learning import timed_step, untrained_model
from promptot.training.batches import views_bytes, views_used
from promptot.training.estimate import memory_estimate

IMAGES = 8  # in a batch of noise that is timed
SAMPLES = 4  # images that are read to time the reading
FEATURE_BYTES = 4


@dataclass(frozen=True)
class MethodForecast:
    """One method's part: how many cells and optimiser steps, and seconds of one process."""

    label: str
    cells: int
    steps: int
    training_seconds: float
    testing_seconds: float


@dataclass(frozen=True)
class Forecast:
    """What the missing cells will cost.

    Attributes:
        methods: in the order of the cells.
        feature_seconds: of the frozen features of the test images, computed once for all methods.
        memory_bytes: peak of one process in the largest cell.
        disk_bytes: of what is kept of test images and of fixed views.
        jobs: processes that share the work.
    """

    methods: Sequence[MethodForecast]
    feature_seconds: float
    memory_bytes: int
    disk_bytes: int
    jobs: int

    @property
    def seconds(self) -> float:
        """Of all processes together; with several jobs at best a share of it each."""
        own = sum(m.training_seconds + m.testing_seconds for m in self.methods)
        return own + self.feature_seconds


@dataclass(frozen=True)
class _Rates:
    """Seconds an image: to read it, and to encode it."""

    read: float
    encode: float


def make_forecast(
    cells: Sequence[Cell], scenarios: Mapping[Unit, Scenario], backbone: Backbone, jobs: int = 1
) -> Forecast:
    """Time timed steps and count how often they will come; nothing learns.

    A method is timed at its fewest and its most classes, and in between by a straight line. What
    other work runs on the machine is in the figure; what is shared between cells (kept adapters)
    counts once each, so that the estimate is rather too high.

    Args:
        cells: those that are missing.
        scenarios: what they train on and test, by unit.
        backbone: on the device to use.
        jobs: processes that will share the work; each needs the memory.
    """
    if not cells:
        return Forecast((), 0.0, 0, 0, jobs)
    pairs = [(cell.method, scenarios[cell.unit], cell.seed) for cell in cells]
    used = [scenarios[unit] for unit in dict.fromkeys(cell.unit for cell in cells)]
    rates = _rates(used, backbone)
    shown = {example.source for t in used for part in t.parts.values() for example in part.test}
    methods, memory = [], 0
    # Of one scenario and seed, views are kept once for all methods.
    views: dict[tuple[Unit, int, int], int] = {}
    for label in dict.fromkeys(method.label for method, _, _ in pairs):
        own = [pair for pair in pairs if pair[0].label == label]
        part, peak = _forecast_method([pair[:2] for pair in own], backbone, rates)
        methods.append(part)
        kept = {
            (scenario.unit, seed, views_used(method.recipe)): _views(
                method.recipe, scenario, backbone
            )
            for method, scenario, seed in own
        }
        views |= kept
        memory = max(memory, peak + max(kept.values()))
    return Forecast(
        methods,
        len(shown) * (rates.read + rates.encode),
        memory,
        len(shown) * backbone.embed_dim * FEATURE_BYTES + sum(views.values()),
        jobs,
    )


def _views(recipe: Recipe, scenario: Scenario, backbone: Backbone) -> int:
    """Bytes of what is kept of the fixed views that a cell trains on."""
    if not recipe.trains or recipe.data.views is None:
        return 0
    return views_bytes(backbone, _train_images(scenario), recipe)


def _forecast_method(
    cells: Sequence[tuple[Method, Scenario]], backbone: Backbone, rates: _Rates
) -> tuple[MethodForecast, int]:
    """What the cells of one method cost, and the memory that a process needs."""
    (first, _), once = cells[0], rates.read + rates.encode
    if not first.recipe.trains:
        images = sum(_train_images(scenario) for _, scenario in cells) if first.recipe.probes else 0
        return MethodForecast(first.label, len(cells), 0, images * once, 0.0), 0
    timed, memory = {}, 0
    ordered = sorted(cells, key=lambda cell: _classes(cell[1]))
    for method, scenario in (ordered[0], ordered[-1]):
        if _classes(scenario) not in timed:
            timed[_classes(scenario)], peak = _time_step(method, scenario, backbone)
            memory = max(memory, peak)
    steps, training, testing = 0, 0.0, 0.0
    for method, scenario in cells:
        recipe = method.recipe
        images = _train_images(scenario)
        epochs = recipe.evaluate_epoch or recipe.optim.epochs
        own = epochs * max(1, images // recipe.optim.batch_size)
        steps += own
        training += own * _between(timed, _classes(scenario))
        views = views_used(recipe)
        training += views * images * once
        if not views or recipe.data.teacher == "cached-views":  # else what is read once is kept
            training += epochs * images * rates.read
        if changes_images(recipe.prompts):
            testing += sum(len(part.test) for part in scenario.parts.values()) * once
    return MethodForecast(first.label, len(cells), steps, training, testing), memory


def _time_step(method: Method, scenario: Scenario, backbone: Backbone) -> tuple[float, int]:
    """Seconds of an optimiser step without reading images, and peak memory of the process."""
    names = _trained_names(scenario)
    model = untrained_model(backbone, names, method.recipe)
    seconds = timed_step(model, method.recipe)
    words = method.recipe.vocabulary.per_step or len(model.vocabulary)
    anchors = min(words, len(model.vocabulary))
    return seconds, memory_estimate(model, method.recipe.optim.batch_size, anchors)


def _between(timed: dict[int, float], classes: int) -> float:
    """A straight line between the counts of classes that were timed."""
    fewest, most = min(timed), max(timed)
    share = 0.0 if most == fewest else (classes - fewest) / (most - fewest)
    return timed[fewest] + share * (timed[most] - timed[fewest])


def _trained_names(scenario: Scenario) -> tuple[str, ...]:
    names = scenario.pool.class_names
    half = (len(names) + 1) // 2
    return {"all": names, "base": names[:half], "novel": names[half:]}[scenario.classes]


def _classes(scenario: Scenario) -> int:
    return len(_trained_names(scenario))


def _train_images(scenario: Scenario) -> int:
    """The shots of the trained classes, about: where classes differ in size, their mean."""
    per_class = Counter(example.label for example in scenario.pool.train)
    drawn = sum(min(count, scenario.shots) for count in per_class.values())
    return round(drawn * _classes(scenario) / max(1, len(per_class)))


def _rates(scenarios: Sequence[Scenario], backbone: Backbone) -> _Rates:
    transform = backbone.preprocess.test()
    examples = [example for scenario in scenarios for example in scenario.pool.train[:1]][:SAMPLES]
    read = []
    for example in examples:
        began = time.perf_counter()
        try:
            transform(example.load())
        except (UnreadableImage, PromptotError):
            continue
        read.append(time.perf_counter() - began)
    side = backbone.preprocess.resolution
    noise = torch.rand(IMAGES, 3, side, side, generator=torch.Generator().manual_seed(0))
    images = noise.to(backbone.device)
    with torch.no_grad():
        backbone.encode_image(images).sum().item()  # warms up
        began = time.perf_counter()
        backbone.encode_image(images).sum().item()
        encode = (time.perf_counter() - began) / IMAGES
    return _Rates(sorted(read)[len(read) // 2] if read else 0.0, encode)
