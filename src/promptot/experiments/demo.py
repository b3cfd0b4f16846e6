"""The main job in a minute or a few: zero-shot, IVLP and Prompt-OT side by side.

On the drawings that ship in the package, or on anyone's images.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.backbones.library_versions import versions
from promptot.data.catalog.drawings import (
    DRAWINGS,
    UNSEEN,
    list_groups,
    load_bundled,
    load_bundled_others,
)
from promptot.data.task import Progress, no_progress
from promptot.errors import PromptotError
from promptot.evaluation.metrics import harmonic_mean
from promptot.evaluation.scoring import Scores, score
from promptot.experiments.cell_progress import counter
from promptot.experiments.cells import make_cells
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.methods import Method
from promptot.experiments.protocols import PROTOCOLS
from promptot.experiments.result_folder import check_result_folder
from promptot.experiments.run_cell import CellContext, learn_cell
from promptot.experiments.scenarios import Scenario, Source, load_sources, merge
from promptot.files.writing import write_json
from promptot.recipes import Recipe, describe, load_recipe
from promptot.reports import (
    Answer,
    ExampleImage,
    Measure,
    ReportData,
    Row,
    Table,
    write_report,
)
from promptot.runs.report.panels import draw_plan, history, likeliest
from promptot.training.training_log import Log

GROUP = "animals"
RESULTS, PAGE = "results.json", "report.html"
SHOTS = 4
PHOTO_SHOTS = 8
LEAST_CLASSES = 4  # of one's own images; of one name every answer is right
OVERRIDES = (
    "data.views=4",
    "optim.batch_size=16",
    "optim.epochs=10",
    "optim.lr=0.02",
)
"""What both methods change of their published values, beside the shots, to take seconds: fewer and
larger steps.

Chosen by tools/choose_demo_settings.py on the validation styles, with the bundled model of 0.2.0.
"""
METHODS = {"ivlp": "IVLP", "prompt-ot": "Prompt-OT"}
BUNDLED_MODEL = "bundled:tiny"
PARTS = ("base", "novel", "retention")
TITLE = ("name", "summary", "paper")
_SMALL_MODEL = (
    "The model is small and ships inside the package; the figures say how the methods compare on "
    "it, not what they reach with a large CLIP."
)


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
    def figures(self) -> dict[str, float | None]:
        """What is made of the scores and the log; None where there is nothing to make it of."""
        return {
            "harmonic_mean": harmonic_mean(self.scores["base"].value, self.scores["novel"].value),
            "off_diagonal_mass": self.log.mean("off_diagonal_mass"),  # over all steps
            "seconds": self.seconds,
        }

    def row(self) -> Row:
        return Row(self.name, {**self.scores, **self.figures})

    def as_json(self) -> dict[str, Any]:
        shares = {part: measure.value for part, measure in self.scores.items()}
        return {"method": self.name, **shares, **self.figures}


@dataclass(frozen=True, eq=False)
class Demo:
    """What the demo found, and where its page is."""

    title: str
    outcomes: list[Outcome]
    table: Table
    page: Path
    seconds: float

    def as_json(self) -> dict[str, Any]:
        return {
            "results": [outcome.as_json() for outcome in self.outcomes],
            "report": str(self.page),
            "seconds": self.seconds,
        }


@dataclass(frozen=True, eq=False)
class Subject:
    """What the demo learns and tests.

    Attributes:
        source: the classes, half of which it learns, and what else the model should still know.
        shots: images of each class to learn from.
        images: what they are called.
        tested_on: what is to be known of the test images, the beginning of a sentence.
        others: what the classes of `source.others` are called.
        title: of the page.
    """

    source: Source
    shots: int
    images: str
    tested_on: str
    others: str
    title: str


def drawn_subject() -> Subject:
    """One group of the drawings in the package; the model should still know the others."""
    return Subject(
        Source(
            GROUP,
            GROUP,
            load_bundled(GROUP),
            load_bundled_others(GROUP),
            GROUP,
            listed_from=DRAWINGS,
        ),
        SHOTS,
        "drawings",
        "Drawings in a style that neither the model nor the adaptation has seen",
        "all other groups",
        "Prompt-OT on the bundled drawings",
    )


def own_subject(photos: str | Path, shots: int = PHOTO_SHOTS) -> Subject:
    """The classes of anyone's images; the model should still know the drawings in the package.

    Raises:
        PromptotError: the images can't be read, or are of too few classes.
    """
    (source,) = load_sources([str(photos)])
    count = len(source.task.class_names)
    if count < LEAST_CLASSES:
        raise PromptotError(
            f"'{photos}' has {count} classes, and half of them are held out: the demo needs "
            f"{LEAST_CLASSES} or more.",
            fix="`promptot fit` learns few classes too.",
        )
    drawn = [load_bundled(group) for group in list_groups() if group != UNSEEN]
    return Subject(
        replace(source, others=merge(drawn, source.task.class_names)),
        shots,
        "images",
        f"Images of {source.name} that were not learnt from",
        "the drawings inside the package",
        f"Prompt-OT on {source.name}",
    )


def run_demo(
    out: str | Path,
    seed: int = 1,
    overrides: Sequence[str] = (),
    device: torch.device | str = "auto",
    precision: str = "fp32",
    photos: str | Path | None = None,
    backbone: str | Backbone = BUNDLED_MODEL,
    progress: Progress = no_progress,
) -> Demo:
    """Adapt a CLIP to half of some classes, and test what it knows of these, the other half, and
    all else.

    Args:
        out: folder for `report.html` and `results.json`.
        seed: of the shots, the start and the order of training.
        overrides: recipe values that replace the demo's, for both methods.
        device, precision: see `load_backbone`; they do not touch a loaded backbone.
        photos: images to learn and to test, as `fit` takes them; None: drawings of the package.
        backbone: name of a frozen CLIP, or a loaded one.
        progress: is told how it goes.

    Raises:
        PromptotError: the backbone or the images can't be loaded, or the folder is someone else's.
    """
    began = time.perf_counter()
    check_result_folder(Path(out), (RESULTS, PAGE), RESULTS, ("results", "report"), "demo")
    subject = drawn_subject() if photos is None else own_subject(photos)
    if isinstance(backbone, str):
        backbone = load_backbone(backbone, device, precision)
    protocol = PROTOCOLS["base-to-novel"]
    (scenario,) = protocol.scenarios([subject.source], [], [subject.shots], "test")
    methods = [Method("Zero-shot", "zero-shot", load_recipe("zero-shot"))]
    changed = [f"data.shots={subject.shots}", *OVERRIDES, *overrides]
    for name, label in METHODS.items():
        methods.append(Method(label, name, load_recipe(name, changed)))
    context = CellContext(
        {scenario.unit: scenario}, backbone, ImageFeatures(None, backbone), progress=progress
    )
    scores: dict[str, dict[str, Scores]] = {}
    outcomes = []
    cells = make_cells(protocol.name, [scenario], methods, [seed], "test", backbone)
    for cell in cells:
        name, recipe, log = cell.method.label, cell.method.recipe, Log()
        model, _, seconds = learn_cell(cell, context, log)
        scores[name] = _test(model, context, scenario, subject.images)
        learns = cell.method.learns
        outcomes.append(
            Outcome(
                name,
                _measures(scores[name]),
                log,
                seconds if learns else None,
                recipe if learns else None,
            )
        )

    table = Table(
        [outcome.row() for outcome in outcomes], caption=_caption(subject, scenario, seed)
    )
    page = Path(out) / PAGE
    demo = Demo(subject.title, outcomes, table, page, time.perf_counter() - began)
    write_json(Path(out) / RESULTS, demo.as_json())
    shots = len(context.draw(cells[-1]).train.train)
    write_report(_report(demo, model, subject, scenario, shots, scores, seed), page)
    return demo


def _test(
    model: Student, context: CellContext, scenario: Scenario, images: str
) -> dict[str, Scores]:
    found = {}
    for name, part in scenario.parts.items():
        count = counter(context.progress, f"reading the {images} ({name})", len(part.test))
        batches = context.images.batches(part.test, count)
        found[name] = score(model.for_classes(part.class_names), batches, keep_features=True)
    return found


def _measures(scores: dict[str, Scores]) -> dict[str, Measure]:
    return {
        part: Measure(result.student_accuracy, result.student_interval)
        for part, result in scores.items()
    }


def _caption(subject: Subject, scenario: Scenario, seed: int) -> str:
    base, novel, other = (scenario.parts[part] for part in PARTS)
    return (
        f"{subject.tested_on}: "
        f"{len(base.test)} of {len(base.class_names)} base classes, {len(novel.test)} of "
        f"{len(novel.class_names)} novel classes, {len(other.test)} of the "
        f"{len(other.class_names)} classes of {subject.others}. Seed {seed}; intervals: 95 %, "
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
        f"classes, against zero-shot. {free.name}: {', '.join(change(free, p) for p in PARTS)}."
    )


def _report(
    demo: Demo,
    model: Student,
    subject: Subject,
    scenario: Scenario,
    shots: int,
    found: dict[str, dict[str, Scores]],
    seed: int,
) -> ReportData:
    """The page: the last method's model shows its plan.

    Args:
        shots: how many images were learnt from.
        found: by method and part.
    """
    base, backbone = scenario.parts["base"], model.backbone
    adapted = {o.name: (o, o.recipe) for o in demo.outcomes if o.recipe is not None}
    return ReportData(
        title=demo.title,
        headline=headline(demo.outcomes),
        subtitle=(
            f"{backbone.name} learns {len(base.class_names)} base classes ({subject.source.name}) "
            f"from {shots} {subject.images}, and is tested on those, on classes it saw no example "
            f"of, and on {subject.others}."
        ),
        results=demo.table,
        histories=[
            history(name, outcome.log, describe(recipe))
            for name, (outcome, recipe) in adapted.items()
        ],
        examples=_examples(scenario, found),
        plans=draw_plan(
            model.for_classes(base.class_names),
            adapted["Prompt-OT"][1].objective,
            found["Prompt-OT"]["base"],
            f"test {subject.images} of base classes",
        ),
        recipes={
            name: {key: value for key, value in describe(recipe).items() if key not in TITLE}
            for name, (_, recipe) in adapted.items()
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
            "One seed: a difference smaller than the intervals is not a result. Another seed gives "
            "another draw.",
            *([_SMALL_MODEL] if backbone.name == BUNDLED_MODEL else []),
            "Both methods use their published objective and optimiser, with the changes that the "
            "settings below show; those were chosen for the drawings, and on no other images or "
            "model.",
        ],
    )


def _examples(
    scenario: Scenario, found: dict[str, dict[str, Scores]], per_part: int = 4
) -> list[ExampleImage]:
    """Images on which the models disagree, then others, in the order of the test list."""
    chosen = []
    for part in PARTS:
        task = scenario.parts[part]
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
                    note={"base": "base", "novel": "novel", "retention": "other"}[part],
                )
            )
    return chosen
