"""The main job on what ships in the package: zero-shot, IVLP and Prompt-OT side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from promptot.adaptation.student import PromptedModel
from promptot.backbones import Backbone, load_backbone
from promptot.data.catalog.drawings import load_bundled, load_bundled_others
from promptot.data.loader import Batch
from promptot.data.task import ImageTask
from promptot.evaluation.metrics import harmonic_mean
from promptot.evaluation.scoring import Scores, score
from promptot.experiments.result_folder import check_result_folder
from promptot.files.writing import write_json
from promptot.recipes import Recipe, describe, load_recipe
from promptot.reports import (
    Answer,
    ExampleImage,
    Measure,
    ReportData,
    ResultTable,
    Row,
    write_report,
)
from promptot.runs.report.panels import draw_plan, history, likeliest
from promptot.runs.run import adapt, versions
from promptot.training.batches import evaluation_loader, training_loader
from promptot.training.trainer import Callbacks
from promptot.training.training_log import EpochRecord, Log
from promptot.training.views import keep_view

GROUP = "animals"
RESULTS, PAGE = "results.json", "report.html"
SHOTS = 4
OVERRIDES = (
    "data.shots=4",
    "data.views=4",
    "optim.batch_size=16",
    "optim.epochs=10",
    "optim.lr=0.02",
)
"""What both methods change of their published values to take seconds: fewer and larger steps.

Of the settings in tools/choose_demo_settings.py, the one with the best harmonic mean of Prompt-OT
on the validation styles."""
METHODS = {"ivlp": "IVLP", "prompt-ot": "Prompt-OT"}
PARTS = ("base", "novel", "retention")
Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """One method's result.

    Attributes:
        name: as shown.
        scores: accuracy and its 95 % interval on "base", "novel" and "retention".
        log: of training; empty for zero-shot.
        seconds: of training.
    """

    name: str
    scores: dict[str, Measure]
    log: Log
    seconds: float | None
    recipe: Recipe | None

    @property
    def harmonic_mean(self) -> float:
        return harmonic_mean(self.scores["base"].value, self.scores["novel"].value)

    @property
    def off_diagonal_mass(self) -> float | None:
        """Mean over all steps; None where no plan was solved for."""
        return self.log.mean("off_diagonal_mass")

    def row(self) -> Row:
        return Row(
            self.name,
            {
                **self.scores,
                "harmonic_mean": self.harmonic_mean,
                "off_diagonal_mass": self.off_diagonal_mass,
                "seconds": self.seconds,
            },
        )

    def as_json(self) -> dict[str, Any]:
        return {
            "method": self.name,
            **{part: measure.value for part, measure in self.scores.items()},
            "harmonic_mean": self.harmonic_mean,
            "off_diagonal_mass": self.off_diagonal_mass,
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo found, and where its page is."""

    outcomes: list[Outcome]
    table: ResultTable
    page: Path
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "results": [outcome.as_json() for outcome in self.outcomes],
            "report": str(self.page),
            "seconds": self.seconds,
        }


def run_demo(
    out: str | Path,
    seed: int = 1,
    overrides: Sequence[str] = (),
    device: torch.device | str = "auto",
    precision: str = "fp32",
    progress: Progress = lambda what, done, total: None,
) -> Demo:
    """Adapt the bundled CLIP to the base classes of one group of drawings, and test what it knows.

    Args:
        out: folder for `report.html` and `results.json`.
        seed: of the shots, the start and the order of training.
        overrides: recipe values that replace the demo's, for both methods.
        device, precision: see `load_backbone`.
    """
    began = time.perf_counter()
    check_result_folder(Path(out), (RESULTS, PAGE), RESULTS, ("results", "report"), "demo")
    backbone = load_backbone("bundled:tiny", device, precision)
    drawn = load_bundled(GROUP).few_shot(SHOTS, seed)
    tasks = dict(zip(PARTS, (drawn.base(), drawn.novel(), load_bundled_others(GROUP)), strict=True))
    tests = {}
    for part, task in tasks.items():
        drawings = evaluation_loader(backbone, task.test)
        done = _counter(progress, f"reading the drawings ({part})", len(task.test))
        tests[part] = keep_view(backbone, drawings, done)

    recipes = {name: load_recipe(name, [*OVERRIDES, *overrides]) for name in METHODS}
    first = next(iter(recipes.values()))
    total = len(tasks["base"].train) * (first.data.views or 0)
    done = _counter(progress, "augmenting the drawings", total)
    loader = training_loader(backbone, tasks["base"], first, seed, 0, done)

    frozen = PromptedModel(backbone, None, tasks["base"].class_names, drawn.template)
    found = {"Zero-shot": _test(frozen, tasks, tests)}
    outcomes = [Outcome("Zero-shot", _measures(found["Zero-shot"]), Log(), None, None)]
    models = {}
    for name, recipe in recipes.items():
        log = Log()
        started = time.perf_counter()
        model = adapt(
            backbone,
            tasks["base"],
            recipe,
            log,
            seed=seed,
            loader=loader,
            callbacks=_training_progress(progress, METHODS[name]),
        )
        seconds = time.perf_counter() - started
        models[METHODS[name]] = model
        found[METHODS[name]] = _test(model, tasks, tests)
        outcomes.append(
            Outcome(METHODS[name], _measures(found[METHODS[name]]), log, seconds, recipe)
        )

    table = ResultTable([outcome.row() for outcome in outcomes], caption=_caption(tasks, seed))
    page = Path(out) / PAGE
    demo = Demo(outcomes, table, page, time.perf_counter() - began)
    write_json(Path(out) / RESULTS, demo.as_json())
    write_report(_report(demo, backbone, tasks, found, models["Prompt-OT"], seed), page)
    return demo


def _test(
    model: PromptedModel, tasks: dict[str, ImageTask], tests: dict[str, Batch]
) -> dict[str, Scores]:
    return {
        part: score(model.for_classes(task.class_names), [tests[part]], keep_features=True)
        for part, task in tasks.items()
    }


def _measures(scores: dict[str, Scores]) -> dict[str, Measure]:
    return {
        part: Measure(result.student_accuracy, result.student_interval)
        for part, result in scores.items()
    }


def _caption(tasks: dict[str, ImageTask], seed: int) -> str:
    base, novel, other = (tasks[part] for part in PARTS)
    return (
        f"Drawings in a style that neither the model nor the adaptation has seen: "
        f"{len(base.test)} of {len(base.class_names)} base classes, {len(novel.test)} of "
        f"{len(novel.class_names)} novel classes, {len(other.test)} of the "
        f"{len(other.class_names)} classes of all other groups. Seed {seed}; intervals: 95 %, "
        "Wilson, over the test images."
    )


def headline(outcomes: Sequence[Outcome]) -> str:
    """One sentence that says what happened, whatever it was."""
    frozen, free, kept = outcomes

    def change(outcome: Outcome, part: str) -> str:
        points = 100 * (outcome.scores[part].value - frozen.scores[part].value)
        return f"{points:+.1f}".replace("-", "−")

    base, novel, other = (change(kept, part) for part in PARTS)
    return (
        f"{kept.name}: {base} points on base classes, {novel} on novel ones, {other} on other "
        f"groups, against zero-shot. {free.name}: {', '.join(change(free, p) for p in PARTS)}."
    )


def _report(
    demo: Demo,
    backbone: Backbone,
    tasks: dict[str, ImageTask],
    found: dict[str, dict[str, Scores]],
    model: PromptedModel,
    seed: int,
) -> ReportData:
    base = tasks["base"]
    return ReportData(
        title="Prompt-OT on the bundled drawings",
        headline=headline(demo.outcomes),
        subtitle=(
            f"A small CLIP learns {len(base.class_names)} base classes ({GROUP}) from "
            f"{len(base.train)} drawings, and is tested on those, on {GROUP} it saw no example "
            "of, and on everything else it knew."
        ),
        results=demo.table,
        histories=[
            history(o.name, o.log, describe(o.recipe))
            for o in demo.outcomes
            if o.log.steps and o.recipe is not None
        ],
        examples=_examples(tasks, found),
        plans=draw_plan(
            model.for_classes(base.class_names),
            demo.outcomes[-1].recipe.objective,
            found["Prompt-OT"]["base"],
            "test drawings of base classes",
        )
        if demo.outcomes[-1].recipe is not None
        else [],
        recipes={
            o.name: {
                key: value
                for key, value in describe(o.recipe).items()
                if key not in ("name", "summary", "paper")
            }
            for o in demo.outcomes
            if o.recipe is not None
        },
        environment={
            "seed": seed,
            "backbone": backbone.name,
            "backbone weights (SHA-256)": backbone.weight_hash(),
            "backbone identity (SHA-256)": backbone.identity().digest,
            "seconds": round(demo.seconds, 1),
            **versions(),
        },
        caveats=[
            "One seed and one test style: a difference smaller than the intervals is not a "
            "result. Another seed gives another draw.",
            "The model is small and was made for this demonstration; the figures say how the "
            "methods compare on it, not what they reach on photographs with a large CLIP.",
            "Both methods use their published objective and optimiser, with the changes that the "
            "settings below show; those were chosen on the validation styles, not on this test.",
        ],
    )


def _examples(
    tasks: dict[str, ImageTask], found: dict[str, dict[str, Scores]], per_part: int = 4
) -> list[ExampleImage]:
    """Images on which the models disagree, then others, in the order of the test list."""
    chosen = []
    for part in PARTS:
        task = tasks[part]
        right = torch.stack(
            [f[part].student.argmax(1) == f[part].labels for f in found.values()]
        )  # [methods, N]
        agree = (right == right[0]).all(dim=0)
        order = torch.argsort(agree.int(), stable=True)[:per_part].tolist()
        for index in order:
            example = task.test[index]
            chosen.append(
                ExampleImage(
                    image=example.load(),
                    label=task.class_names[example.label],
                    answers=[
                        Answer(name, likeliest(scores[part].student[index], task.class_names))
                        for name, scores in found.items()
                    ],
                    note={"base": "base", "novel": "novel", "retention": "other group"}[part],
                )
            )
    return chosen


def _counter(progress: Progress, what: str, total: int) -> Callable[[int], None]:
    done = 0

    def count(images: int) -> None:
        nonlocal done
        done += images
        progress(what, done, total)

    return count


def _training_progress(progress: Progress, name: str) -> Callbacks:
    epochs = 0

    def start(done: int, total: int) -> None:
        nonlocal epochs
        epochs = total

    def epoch(record: EpochRecord) -> None:
        progress(f"training {name}", record.epoch, epochs)

    return Callbacks(on_start=start, on_epoch=epoch)
