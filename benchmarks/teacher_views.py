"""The teacher read anew for every batch, or its features of K fixed views kept: cost and gain.

Accuracy, on the bundled drawings: the same training (same start, order and budget) with K fixed
views an image. K = epochs is the on-line teacher: every epoch sees new augmentations. Base and
novel accuracy, harmonic mean, and the difference to on-line, over tasks and seeds:

    python benchmarks/teacher_views.py accuracy --tasks activities,food --seeds 1,2,3

Time, on a ViT-B/16 at random weights: one optimiser step with the teacher's image features computed
and with them given, and what they take to make and to keep:

    python benchmarks/teacher_views.py step
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from _common import (
    SMOKE,
    build_backbone,
    class_names,
    duration,
    environment,
    interleave,
    parser,
    save,
    table,
)
from promptot.backbones import Backbone, load_backbone
from promptot.data import ImageTask, load_bundled
from promptot.data.loader import Batch, ImageLoader
from promptot.evaluation.scoring import score
from promptot.recipes import load_recipe
from promptot.runs.learning import adapt, build_objective, untrained_model
from promptot.training.batches import EVALUATION_BATCH, evaluation_loader, views_bytes
from promptot.training.training_log import Log
from promptot.training.views import CachedViews, keep_view

SHOTS = 4
BATCH = 16


def accuracy(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Base and novel accuracy of Prompt-OT for each number of views, task and seed."""
    backbone = load_backbone("bundled:tiny")
    counts = sorted({min(k, options.epochs) for k in options.views} | {options.epochs})
    rows = []
    for name in options.tasks:
        task = load_bundled(name)
        tests = {
            part: _kept_tests(backbone, half)
            for part, half in (("base", task.base()), ("novel", task.novel()))
        }
        for seed in options.seeds:
            train = task.few_shot(SHOTS, seed).base()
            began = time.perf_counter()
            views = _views(backbone, train, seed, options.epochs)
            made = time.perf_counter() - began
            for count in counts:
                row = _train(backbone, train, task, views[:count], seed, options.epochs, tests)
                rows.append({"task": name, "seed": seed, "views": count, **row})
                print(rows[-1], flush=True)
            print(f"  ({name}, seed {seed}: {options.epochs} views in {made:.0f} s)", flush=True)
    return rows


def _views(backbone: Backbone, train: ImageTask, seed: int, epochs: int) -> list[Batch]:
    """The augmentations of epochs 1, 2, … as patch tokens with the teacher's features."""
    loader = ImageLoader(
        train.train,
        backbone.preprocess.train(scale=(0.08, 1.0)),
        batch_size=EVALUATION_BATCH,
        seed=seed,
    )
    return [keep_view(backbone, loader.batches(epoch)) for epoch in range(1, epochs + 1)]


def _kept_tests(backbone: Backbone, part: ImageTask) -> list[Batch]:
    kept = keep_view(backbone, evaluation_loader(backbone, part.test))
    return [Batch(kept.images, kept.labels, kept.indices, kept.teacher)]


def _train(
    backbone: Backbone,
    train: ImageTask,
    task: ImageTask,
    views: list[Batch],
    seed: int,
    epochs: int,
    tests: dict[str, list[Batch]],
) -> dict[str, float]:
    recipe = load_recipe(
        "prompt-ot", [f"optim.epochs={epochs}", f"optim.batch_size={BATCH}", "optim.lr=0.03"]
    )
    loader = CachedViews(views, BATCH, recipe.optim.drop_last, seed)
    model = adapt(
        backbone, replace(train, template=task.template), recipe, Log(), seed=seed, loader=loader
    )
    found = {}
    for part, half in (("base", task.base()), ("novel", task.novel())):
        found[part] = score(model.for_classes(half.class_names), tests[part]).student_accuracy
    total = found["base"] + found["novel"]
    return {**found, "hm": 2 * found["base"] * found["novel"] / total if total else 0.0}


def show_accuracy(rows: Sequence[dict[str, Any]], epochs: int) -> str:
    """Means over tasks and seeds, and paired differences to the on-line teacher."""
    online = {(r["task"], r["seed"]): r for r in rows if r["views"] == epochs}
    lines = []
    for count in sorted({row["views"] for row in rows}):
        own = [row for row in rows if row["views"] == count]
        gaps = [100 * (row["hm"] - online[row["task"], row["seed"]]["hm"]) for row in own]
        spread = f" ± {statistics.stdev(gaps):.1f}" if len(gaps) > 1 else ""
        means = [100 * statistics.fmean(r[key] for r in own) for key in ("base", "novel", "hm")]
        label = "on-line" if count == epochs else f"K = {count}"
        gap = "–" if count == epochs else f"{statistics.fmean(gaps):+.1f}{spread}"
        lines.append([label, *(f"{mean:.1f}" for mean in means), gap, f"{count / epochs:.0%}"])
    header = ["teacher", "base", "novel", "HM", "HM − on-line (sd over runs)", "teacher passes"]
    return table(header, lines)


def step(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Seconds of a step with the teacher's image features computed, and with them given."""
    rows = []
    for precision in options.precision:
        backbone = (
            build_backbone(SMOKE, precision)
            if options.smoke
            else build_backbone(precision=precision)
        )
        recipe = load_recipe("prompt-ot")
        side, batch = backbone.preprocess.resolution, recipe.optim.batch_size
        images = torch.rand(batch, 3, side, side, generator=torch.Generator().manual_seed(0))
        teacher = backbone.encode_image(images).detach()
        for classes in options.classes:
            model = untrained_model(backbone, tuple(class_names(classes)), recipe)
            objective = build_objective(recipe, steps=1)
            labels = torch.arange(batch) % classes

            def run(given: torch.Tensor | None) -> float:
                student, frozen = model(images, given)  # noqa: B023 - called before the next one
                result = objective(student, frozen, labels, backbone.logit_scale)  # noqa: B023
                result.total.backward()
                model.zero_grad()  # noqa: B023
                return float(result.total.detach())

            same = abs(run(None) - run(teacher))
            timed = interleave(
                {"online": lambda: run(None), "cached": lambda: run(teacher)},  # noqa: B023
                {"online": options.repeats, "cached": options.repeats},
            )
            rows.append(
                {
                    "precision": precision,
                    "classes": classes,
                    "online": timed["online"].as_dict(),
                    "cached": timed["cached"].as_dict(),
                    "ratio": timed["online"].median / timed["cached"].median,
                    "loss_difference": same,
                }
            )
    return rows


def show_step(rows: Sequence[dict[str, Any]]) -> str:
    """The step's table, and what keeping costs."""
    lines = [
        [
            f"{row['precision']}, {row['classes']} classes",
            duration(row["online"]["median"]),
            duration(row["cached"]["median"]),
            f"{row['ratio']:.2f}",
            f"{row['loss_difference']:.0e}",
        ]
        for row in rows
    ]
    shown = table(["ViT-B/16, batch 4", "on-line", "cached", "ratio", "loss differs by"], lines)
    backbone = build_backbone()
    recipe = load_recipe("prompt-ot", ["data.teacher=cached-views", "data.views=8"])
    whole = load_recipe("prompt-ot", ["data.views=8"])
    images = 16 * 500
    kept, tokens = (views_bytes(backbone, images, r) / 2**20 for r in (recipe, whole))
    return (
        f"{shown}\n\n8 views of {images} images: {kept:.0f} MiB of features; with patch tokens "
        f"(data.views=8 alone) {tokens:,.0f} MiB."
    )


def main() -> None:
    made = parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("what", choices=("accuracy", "step"))
    made.add_argument("--tasks", type=lambda t: t.split(","), default=["activities"])
    numbers = {"type": lambda text: [int(part) for part in text.split(",")]}
    made.add_argument("--seeds", default=[1, 2, 3], **numbers)
    made.add_argument("--views", default=[1, 2, 4], **numbers)
    made.add_argument("--epochs", type=int, default=10)
    made.add_argument("--classes", default=[50], **numbers)
    made.add_argument("--repeats", type=int, default=5)
    made.add_argument("--precision", type=lambda t: t.split(","), default=["fp32"])
    options = made.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.tasks, options.seeds, options.epochs, options.repeats = ["activities"], [1], 2, 3
    rows = accuracy(options) if options.what == "accuracy" else step(options)
    print(f"\n{environment()}\n")
    print(show_accuracy(rows, options.epochs) if options.what == "accuracy" else show_step(rows))
    save(options.json, f"teacher views, {options.what}", rows)


if __name__ == "__main__":
    main()
