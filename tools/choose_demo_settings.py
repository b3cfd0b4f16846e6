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

from promptot.backbones import Backbone, load_backbone
from promptot.demo import GROUP, METHODS, PARTS, SHOTS
from promptot.evaluation.metrics import harmonic_mean
from promptot.evaluation.scoring import score
from promptot.files import write_json
from promptot.recipes import load_recipe
from promptot.run import adapt, evaluation_loader, training_loader
from promptot.tasks.bundled import load_bundled, load_bundled_others
from promptot.tasks.dataset import ImageTask
from promptot.tasks.loader import Batch
from promptot.training.records import Log
from promptot.training.views import keep_view

GRID = {
    "optim.batch_size,optim.epochs,optim.lr": [
        (4, 4, None),
        (4, 7, None),
        (16, 12, None),
        (16, 12, 0.02),
        (32, 25, 0.02),
    ],
    "data.smallest_crop": [0.08, 0.5],
}


def settings() -> list[list[str]]:
    """Every setting of the grid, as overrides."""
    keys = [key for group in GRID for key in group.split(",")]
    found = []
    for values in itertools.product(*GRID.values()):
        flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
        found.append([f"{k}={v}" for k, v in zip(keys, flat, strict=True) if v is not None])
    return found


def try_setting(
    backbone: Backbone,
    tasks: dict[str, ImageTask],
    kept: dict[str, Batch],
    overrides: list[str],
    seed: int,
) -> list[dict[str, object]]:
    """Train both methods with one setting and score them on the validation styles."""
    rows: list[dict[str, object]] = []
    common = ["data.shots=4", "data.views=8", *overrides]
    recipes = {name: load_recipe(name, common) for name in METHODS}
    loader = training_loader(backbone, tasks["base"], recipes["prompt-ot"], seed)
    for name, recipe in recipes.items():
        began = time.perf_counter()
        model = adapt(backbone, tasks["base"], recipe, Log(), seed=seed, loader=loader)
        seconds = time.perf_counter() - began
        scores = {
            part: score(model.for_classes(task.class_names), [kept[part]]).student_accuracy
            for part, task in tasks.items()
        }
        hm = harmonic_mean(scores["base"], scores["novel"])
        rows.append({"method": name, **scores, "harmonic_mean": hm, "seconds": seconds})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--out", type=Path, default=Path("build/demo_settings.json"))
    arguments = parser.parse_args()

    backbone = load_backbone("bundled:tiny")
    everything, others = load_bundled(GROUP), load_bundled_others(GROUP)
    results: dict[str, list[dict[str, object]]] = {}
    for seed in arguments.seeds:
        drawn = everything.few_shot(SHOTS, seed)
        tasks = dict(zip(PARTS, (drawn.base(), drawn.novel(), others), strict=True))
        whole = dict(
            zip(PARTS, (everything.base(), everything.novel(), others), strict=True)
        )  # every validation drawing, not only the drawn ones
        kept = {
            part: keep_view(backbone, evaluation_loader(backbone, task.validation))
            for part, task in whole.items()
        }
        for overrides in settings():
            for row in try_setting(backbone, tasks, kept, overrides, seed):
                key = " ".join(overrides)
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
