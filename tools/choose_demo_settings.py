"""Try settings of the demo on the validation styles; the test style is never looked at.

    python tools/choose_demo_settings.py --seeds 1 2 3 --out build/demo_settings.json

Each setting is tried with both methods on base and novel classes of the demo's group and on all
other groups, and its seconds are measured. The table is sorted by Prompt-OT's harmonic mean.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import time
from pathlib import Path

from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.data.catalog.drawings import load_bundled, load_bundled_others
from promptot.data.loader import Batch, ImageLoader
from promptot.data.task import ImageTask
from promptot.evaluation.metrics import harmonic_mean
from promptot.evaluation.scoring import score
from promptot.experiments.demo import GROUP, METHODS, PARTS, SHOTS
from promptot.files.writing import write_json
from promptot.recipes import load_recipe
from promptot.runs.learning import adapt
from promptot.training.batches import evaluation_loader
from promptot.training.training_log import Log
from promptot.training.views import CachedViews, keep_view

CROPS = (0.08, 0.5)
SCHEDULES = (
    ("optim.epochs=4",),
    ("optim.epochs=6",),
    ("optim.batch_size=16", "optim.epochs=10", "optim.lr=0.02"),
    ("optim.batch_size=32", "optim.epochs=20", "optim.lr=0.02"),
)
VIEWS = 4


def try_setting(
    backbone: Backbone,
    tasks: dict[str, ImageTask],
    kept: dict[str, Batch],
    views: list[Batch],
    overrides: tuple[str, ...],
    seed: int,
) -> list[dict[str, object]]:
    """Train both methods with one setting and score them on the validation styles."""
    rows: list[dict[str, object]] = []
    for name in METHODS:
        recipe = load_recipe(name, overrides)
        loader = CachedViews(views, recipe.optim.batch_size, recipe.optim.drop_last, seed)
        began = time.perf_counter()
        model = adapt(backbone, tasks["base"], recipe, Log(), seed=seed, loader=loader)
        seconds = time.perf_counter() - began
        rows.append({"method": name, **_shares(model, tasks, kept), "seconds": seconds})
    return rows


def _shares(
    model: Student, tasks: dict[str, ImageTask], kept: dict[str, Batch]
) -> dict[str, float]:
    shares = {
        part: score(model.for_classes(task.class_names), [kept[part]]).student_accuracy
        for part, task in tasks.items()
    }
    return {**shares, "harmonic_mean": harmonic_mean(shares["base"], shares["novel"])}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("build/demo_settings.json"))
    arguments = parser.parse_args()

    backbone = load_backbone("bundled:tiny")
    everything, others = load_bundled(GROUP), load_bundled_others(GROUP)
    whole = dict(zip(PARTS, (everything.base(), everything.novel(), others), strict=True))
    kept = {  # every validation drawing, not only as many as shots
        part: keep_view(backbone, evaluation_loader(backbone, task.validation))
        for part, task in whole.items()
    }
    frozen = Student(backbone, None, whole["base"].class_names)
    print("zero-shot", _shares(frozen, whole, kept), flush=True)
    results: dict[str, list[dict[str, object]]] = {}
    for seed, crop in itertools.product(arguments.seeds, CROPS):
        drawn = everything.few_shot(SHOTS, seed)
        tasks = dict(zip(PARTS, (drawn.base(), drawn.novel(), others), strict=True))
        loader = ImageLoader(
            tasks["base"].train,
            backbone.preprocess.train(scale=(crop, 1.0)),
            batch_size=32,
            seed=seed,
        )
        views = [keep_view(backbone, loader.batches(view)) for view in range(VIEWS)]
        for schedule in SCHEDULES:
            key = " ".join((f"data.smallest_crop={crop}", *schedule))
            for row in try_setting(backbone, tasks, kept, views, schedule, seed):
                results.setdefault(key, []).append({"seed": seed, **row})
                print(seed, key, row, flush=True)
            write_json(arguments.out, results)

    def mean(key: str, method: str, field: str) -> float:
        rows = [row for row in results[key] if row["method"] == method]
        return statistics.mean(float(str(row[field])) for row in rows)

    print(f"\n{'setting':64} method     base novel    HM other     s")
    for key in sorted(results, key=lambda key: -mean(key, "prompt-ot", "harmonic_mean")):
        for method in METHODS:
            shares = [100 * mean(key, method, f) for f in (*PARTS[:2], "harmonic_mean", PARTS[2])]
            figures = " ".join(f"{share:5.1f}" for share in shares)
            print(f"{key:64} {method:10} {figures} {mean(key, method, 'seconds'):5.1f}")


if __name__ == "__main__":
    main()
