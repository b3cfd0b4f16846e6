"""The page of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from promptot.adaptation.student import Student
from promptot.backbones.first_choice import real_clip
from promptot.data.catalog.drawings import has_own_images
from promptot.data.task import ImageTask
from promptot.evaluation.metrics import harmonic_mean
from promptot.evaluation.retention import Retention, paired_change
from promptot.evaluation.scoring import Scores
from promptot.reports import Column, Measure, ReportData, Row, Table
from promptot.reports.tables import format_difference, format_value
from promptot.runs.manifest import Manifest
from promptot.runs.report.answers import answer_details, worst_mistakes
from promptot.runs.report.panels import draw_plan, history
from promptot.runs.report.retention_panel import (
    FROZEN,
    key_figures,
    key_figures_lead,
    retention_table,
)
from promptot.training.training_log import Log


@dataclass(frozen=True, eq=False)
class Tested:
    """A run and what it was tested on.

    Attributes:
        model: adapted.
        manifest: of the run.
        log: of its training; empty if it did not train.
        tasks: images and class names of each part ("test"; or "base" and "novel"; …).
        scores: of each part.
        retention: how far the model moved.
        notes: what was left out.
    """

    model: Student
    manifest: Manifest
    log: Log
    tasks: Mapping[str, ImageTask]
    scores: Mapping[str, Scores]
    retention: Retention
    notes: Sequence[str] = ()


def report_data(run: Tested) -> ReportData:
    """Everything on the page of a run."""
    recipe = run.manifest.recipe
    name = run.manifest.recipe_name or "adapted"
    name = "adapted" if name == FROZEN else name
    retention = retention_table(name, run.retention, run.scores)
    data = ReportData(
        title=f"{name} on {run.manifest.task.name}",
        headline=headline(run.scores),
        subtitle=_subtitle(run.manifest),
        results=_results(name, run.scores),
        retention=retention,
        key_figures=key_figures(run.retention),
        key_figures_lead=key_figures_lead(run.retention, recipe, alone=retention is None),
        histories=[history(name, run.log, recipe)] if run.log.steps else [],
        examples_title="Its worst mistakes",
        examples_lead="Images that the adapted model gets wrong, the surest of its errors first, "
        "with the three likeliest names of each model.",
        recipes={name: {k: v for k, v in recipe.items() if "." in k}},
        environment=_environment(run.manifest),
        caveats=_caveats(run),
        notes=run.notes,
    )
    main = _main(run.scores)
    if main is None:
        return data
    scores, task = run.scores[main], run.tasks[main]
    model = run.model.for_classes(task.class_names, synonyms=task.synonyms)
    return replace(
        data,
        details=answer_details(name, scores, task, _images_of(main, scores, task)),
        examples=worst_mistakes(name, scores, task),
        plans=draw_plan(model, run.manifest.objective, scores, "test images"),
    )


def headline(scores: Mapping[str, Scores]) -> str:
    """One sentence with the result, and whether it is more than chance."""
    if not scores:
        return "Nothing was tested: no image was left for it."
    parts: list[str] = []
    for part, result in scores.items():
        change, (low, high) = paired_change(result)
        clear = "" if low > 0 or high < 0 else ", which may be chance"
        label = _label(part).lower() if parts else _label(part)
        accuracy = format_value(result.student_accuracy, "share")
        gain = format_difference(change, "share")
        parts.append(f"{label}: {accuracy} right, {gain} points against zero-shot{clear}")
    return f"{'; '.join(parts)}."


def _main(scores: Mapping[str, Scores]) -> str | None:
    """The part that details are about: the classes that were trained on."""
    order = ("base", "test", "trained classes", "all classes", *scores)
    return next((part for part in order if part in scores), None)


def _label(part: str) -> str:
    named = {"base": "Trained-on classes", "novel": "Held-out classes", "test": "Test images"}
    return named.get(part, part.capitalize())


def _images_of(part: str, scores: Scores, task: ImageTask) -> str:
    return (
        f"{_label(part)}: {len(scores.labels)} images of {len(task.class_names)} classes; it "
        "learnt from none of these images."
    )


def _paths(run: Tested) -> Iterator[str]:
    """Of the images that it learnt from and was tested on."""
    yield from (shot.path for shot in run.manifest.task.shots)
    for part in run.scores:
        yield from (example.path for example in run.tasks[part].test)


def _subtitle(manifest: Manifest) -> str:
    images, classes = len(manifest.task.shots), len(manifest.task.class_names)
    seconds = manifest.results.seconds
    took = "" if seconds is None else f" in {format_value(float(seconds), 'seconds')}"
    return (
        f"{manifest.backbone.name} learnt {classes} "
        f"{'class' if classes == 1 else 'classes'} from "
        f"{images} {'image' if images == 1 else 'images'}{took}. Zero-shot is the same model "
        "before it learnt anything."
    )


def _results(name: str, scores: Mapping[str, Scores]) -> Table | None:
    if not scores:
        return None
    columns = [Column(part, _label(part)) for part in scores]
    rows = {
        FROZEN: {p: Measure(s.teacher_accuracy, s.teacher_interval) for p, s in scores.items()},
        name: {p: Measure(s.student_accuracy, s.student_interval) for p, s in scores.items()},
    }
    if {"base", "novel"} <= scores.keys():
        note = "Of trained-on and held-out classes: high only if both are."
        columns.append(Column("harmonic_mean", "Harmonic mean", note=note))
        for row in rows.values():
            mean = harmonic_mean(row["base"].value, row["novel"].value)
            row["harmonic_mean"] = Measure(mean)
    counts = ", ".join(f"{_label(part)}: {len(s.labels)} images" for part, s in scores.items())
    return Table(
        [Row(row, values) for row, values in rows.items()],
        columns,
        caption=f"{counts}. Intervals: 95 %, Wilson, over these images.",
    )


def _environment(manifest: Manifest) -> dict[str, Any]:
    return {
        **_origin(manifest),
        "classes": manifest.task.classes,
        "template": _sentence(manifest.task.template),
        "backbone": manifest.backbone.name,
        "backbone weights (SHA-256)": manifest.backbone.weight_hash,
        **_function(manifest.backbone.settings),
        "device": manifest.device,
        "precision": manifest.precision,
        "platform": manifest.platform,
        **manifest.versions,
    }


def _function(noted: Mapping[str, Any]) -> dict[str, Any]:
    """What the backbone does with its weights and images, where the manifest says it."""
    return {
        str(key): ", ".join(map(str, value)) if isinstance(value, list) else value
        for key, value in noted.items()
        if not str(key).startswith("tokenizer.")  # hashes, which say nothing to a reader
    }


def _origin(manifest: Manifest) -> dict[str, Any]:
    """The seed; of a mean, what it is the mean of."""
    if manifest.merged is None:
        return {"seed": manifest.seed}
    parts = (f"{source.run} × {source.weight:.3g}" for source in manifest.merged)
    seeds = ", ".join(map(str, manifest.seeds or ()))
    return {"mean of": "; ".join(parts), **({"seeds": seeds} if seeds else {})}


def _sentence(template: str | Sequence[str]) -> str:
    if isinstance(template, str):
        return template
    return template[0] if len(template) == 1 else f"{len(template)} sentences"


def _caveats(run: Tested) -> list[str]:
    caveats = []
    note = real_clip(run.manifest.backbone.name, has_own_images(_paths(run)))
    if note is not None:
        caveats.append(note)
    main = _main(run.scores)
    if main is not None:
        images = len(run.scores[main].labels)
        per_class = Counter(run.scores[main].labels.tolist())
        if images < 100 or min(per_class.values()) < 5:
            caveats.append(
                f"{images} test images, {min(per_class.values())} of the rarest class: a "
                "difference smaller than the intervals is not a result."
            )
    if run.retention.others is None and not {"novel", "other classes"} & run.scores.keys():
        caveats.append(
            "No class was held out, so no accuracy on anything but these classes is known. "
            "`promptot fit --classes base` learns half of the classes and tests on the other half."
        )
    largest = run.log.largest_off_diagonal_mass
    if largest is not None and largest < 5e-4:
        caveats.append(
            "The transport plan was the identity in every step: here the preservation term did "
            "what a point-wise penalty does."
        )
    return caveats
