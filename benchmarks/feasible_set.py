"""Does transport enlarge the feasible set of the prompts? Three measurements on the bundled model.

1. *Prompts that know nothing of it.* Prompts move away from their start in random directions,
   further and further. At each distance: the exact transport cost between N prompted and N frozen
   joint rows as a share of the point-wise cost of the same rows. Below 1 the plan is not the
   identity, and the prompts are feasible at a budget at which they are not point by point.
2. *Prompts that look for it.* Two rows are better exchanged than held apart where
   (a_i − a_j) · (b_i − b_j) < 0, so Adam minimises that product of each row and the worst partner
   of it, within a point-wise budget that is raised step by step. The same share, along the way.
3. *What that buys.* Training to the least cross-entropy subject to "term ≤ budget" (dual ascent on
   λ), for the point-wise term and for transport. The figure is the cross-entropy that is reached,
   on the images and views of training, against the term that was measured there.

Everything is measured in the same units: η‖a − b‖² of joint rows, averaged over the rows.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from promptot import load_backbone
from promptot.adaptation import build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.data.catalog.drawings import load_bundled
from promptot.data.task import ImageTask
from promptot.files.writing import write_json
from promptot.objectives import Features, Pointwise, Transport
from promptot.recipes import load_recipe
from promptot.runs.learning import adapt
from promptot.training.batches import training_loader
from promptot.training.training_log import Log
from promptot.training.views import CachedViews

DISTANCES = (0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0)
POPULATIONS = (4, 16, 64, 256)
SEARCHED = (0.1, 0.2, 0.3, 0.4, 0.6, 1.0, 1.6)
"""Point-wise budgets of the second measurement, one after the other."""
BUDGETS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
FORMS = {
    "point-wise": ["objective=pointwise"],
    "exact transport, batch": ["objective=ot"],
    "exact transport, queue of 256": ["objective=ot", "objective.queue=256"],
    "debiased, ε = 0.3, queue of 256": [
        "objective=ot",
        "objective.queue=256",
        "objective.solver=sinkhorn-divergence",
        "objective.epsilon=0.3",
    ],
}
SETTINGS = ["data.shots=4", "data.views=4", "optim.batch_size=16", "optim.lr=0.02"]


@torch.no_grad()
def rows(model: Student, views: CachedViews) -> tuple[Tensor, Tensor, float]:
    """Joint rows of student and teacher over all views [N, 2D], and the mean cross-entropy."""
    students, teachers, losses = [], [], []
    for view in views.views:
        for part in range(0, len(view.labels), 64):
            chosen = slice(part, part + 64)
            labels = view.labels[chosen]
            assert view.teacher is not None
            student, teacher = model(view.images[chosen], view.teacher[chosen])
            students.append(student.joint_rows(labels))
            teachers.append(teacher.joint_rows(labels))
            logits = student.logits(model.backbone.logit_scale)
            losses.append(torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    return torch.cat(students), torch.cat(teachers), float(torch.cat(losses).mean())


def costs(student: Tensor, teacher: Tensor, size: int, generator: torch.Generator) -> list[float]:
    """Transport cost, point-wise cost and off-diagonal mass, means over populations of N rows."""
    found = []
    for _ in range(max(1, min(20, len(student) // size))):
        chosen = torch.randperm(len(student), generator=generator)[:size]
        moved = Transport()(student[chosen], teacher[chosen])
        paired = Pointwise()(student[chosen], teacher[chosen])
        assert moved.off_diagonal_mass is not None
        found.append([float(x) for x in (moved.value, paired.value, moved.off_diagonal_mass)])
    return torch.tensor(found).mean(dim=0).tolist()


def perturbed(
    backbone: Backbone, task: ImageTask, views: CachedViews, seeds: Sequence[int]
) -> list[dict[str, Any]]:
    """First measurement: prompts moved by Gaussian noise of growing scale."""
    config = load_recipe("prompt-ot").prompts
    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        prompts = build_prompts(config, backbone, len(task.class_names), generator)
        start = [p.detach().clone() for p in prompts.parameters()]
        noise = [torch.randn(p.shape, generator=generator) for p in start]
        model = Student(backbone, prompts, task.class_names, task.template)
        for distance in DISTANCES:
            with torch.no_grad():
                for parameter, first, away in zip(prompts.parameters(), start, noise, strict=True):
                    parameter.copy_(first + distance * away)
            student, teacher, loss = rows(model, views)
            for size in POPULATIONS:
                moved, paired, mass = costs(student, teacher, size, generator)
                found.append(
                    {"seed": seed, "distance": distance, "rows": size, "transport": moved,
                     "pointwise": paired, "off_diagonal_mass": mass, "cross_entropy": loss}
                )  # fmt: skip
    return found


def searched(
    backbone: Backbone, task: ImageTask, views: CachedViews, seeds: Sequence[int], steps: int
) -> list[dict[str, Any]]:
    """Second measurement: prompts that are trained to make exchanging rows pay; one view."""
    config = load_recipe("prompt-ot").prompts
    view = views.views[0]

    def look(model: Student) -> tuple[Features, Tensor, Tensor]:
        student, teacher = model(view.images, view.teacher)
        return student, student.joint_rows(view.labels), teacher.joint_rows(view.labels)

    found = []
    for seed in seeds:
        generator = torch.Generator().manual_seed(seed)
        prompts = build_prompts(config, backbone, len(task.class_names), generator)
        model = Student(backbone, prompts, task.class_names, task.template)
        for budget in SEARCHED:
            optimizer = torch.optim.Adam(prompts.parameters(), lr=0.05)
            for _ in range(steps):
                _, moved, frozen = look(model)
                worst = exchange(moved, frozen).min(dim=1).values.mean()
                excess = Pointwise()(moved, frozen).value / budget - 1
                optimizer.zero_grad()
                (worst + 10 * excess.clamp_min(0)).backward()
                optimizer.step()
            with torch.no_grad():
                student, moved, frozen = look(model)
                result = Transport()(moved, frozen)
                assert result.off_diagonal_mass is not None
                found.append(
                    {"seed": seed, "budget": budget, "rows": len(moved),
                     "transport": float(result.value),
                     "pointwise": float(Pointwise()(moved, frozen).value),
                     "off_diagonal_mass": float(result.off_diagonal_mass),
                     "smallest_exchange": float(exchange(moved, frozen).min()),
                     "accuracy": float((student.logits(1.0).argmax(dim=1) == view.labels)
                                       .double().mean())}
                )  # fmt: skip
            print({key: round(value, 4) for key, value in found[-1].items()}, flush=True)
    return found


def exchange(student: Tensor, teacher: Tensor) -> Tensor:
    """(a_i − a_j) · (b_i − b_j) of all pairs of rows [N, W], [N, N]; ∞ where b_i = b_j."""
    products = student @ teacher.T
    own = products.diagonal()
    exactly = "donot_use_mm_for_euclid_dist"  # products would leave a distance of a row to itself
    same = torch.cdist(teacher, teacher, compute_mode=exactly) < 1e-4
    return (own[:, None] + own - products - products.T).masked_fill(same, math.inf)


def reached(
    backbone: Backbone, task: ImageTask, views: CachedViews, form: str, budget: float, epochs: int
) -> dict[str, Any]:
    """Third measurement: the least cross-entropy found within a budget."""
    recipe = load_recipe(
        "prompt-ot",
        [*SETTINGS, *FORMS[form], f"optim.epochs={epochs}", "objective.control=budget",
         f"objective.budget={budget}"],
    )  # fmt: skip
    log = Log()
    began = time.perf_counter()
    model = adapt(backbone, task, recipe, log, seed=1, loader=views)
    student, teacher, loss = rows(model, views)
    generator = torch.Generator().manual_seed(0)
    moved, paired, mass = costs(student, teacher, 256, generator)
    in_training = log.epochs[-1].off_diagonal_mass
    return {
        "form": form, "budget": budget, "cross_entropy": loss, "pointwise": paired,
        "transport": moved, "off_diagonal_mass": mass, "strength": log.epochs[-1].strength,
        "term_last_epoch": log.epochs[-1].preservation,
        "plan_off_diagonal_last_epoch": None if math.isnan(in_training) else in_training,
        "seconds": time.perf_counter() - began,
    }  # fmt: skip


def draw(results: dict[str, Any], path: Path) -> None:
    """The first two measurements on the left, the third on the right."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.4), layout="constrained")
    colours = ["#4c78a8", "#f58518", "#54a24b", "#b279a2"]
    for size, colour in zip(POPULATIONS, colours, strict=True):
        chosen = [r for r in results["perturbed"] if r["rows"] == size]
        points = sorted((r["pointwise"], r["transport"] / r["pointwise"]) for r in chosen)
        left.plot(
            *zip(*points, strict=True), "o-", ms=3, lw=1, color=colour,
            label=f"random prompts, N = {size}",
        )  # fmt: skip
    found = [[r for r in results["searched"] if r["budget"] == budget] for budget in SEARCHED]
    drift, moved, right_answers = (
        [statistics.fmean(r[key] for r in own) for own in found if own]
        for key in ("pointwise", "transport", "accuracy")
    )
    share = [t / p for t, p in zip(moved, drift, strict=True)]
    left.plot(
        drift, share, "s-", ms=4, lw=1.2, color="#e45756",
        label=f"prompts that look for it, N = {results['searched'][0]['rows']}",
    )  # fmt: skip
    for x, y, accuracy in zip(drift, share, right_answers, strict=True):
        left.annotate(
            f"{100 * accuracy:.0f} %", (x, y), (-6, -12), textcoords="offset points", ha="right",
            color="#e45756", fontsize=8,
        )  # fmt: skip
    left.margins(x=0.12)
    left.set(
        xscale="log", ylim=(0.8, 1.02), xlabel="point-wise cost of the drift (red: accuracy there)",
        ylabel="exact transport / point-wise",
        title="Where transport is cheaper than point-wise",
    )  # fmt: skip
    for form, colour, size in zip(FORMS, colours, (9, 5, 4, 4), strict=True):
        chosen = sorted(
            (r for r in results["reached"] if r["form"] == form), key=lambda r: r["pointwise"]
        )
        drift, loss = ([r[key] for r in chosen] for key in ("pointwise", "cross_entropy"))
        binding = [place for place, r in enumerate(chosen) if r["strength"] > 0]
        right.plot(drift, loss, "o-", ms=size, lw=1.2, color=colour, label=form, markevery=binding)
        slack = [place for place in range(len(chosen)) if place not in binding]
        right.plot(drift, loss, "o", ms=size, color=colour, mfc="white", markevery=slack)
    right.set(
        xscale="log", xlabel="point-wise drift of all training rows", ylabel="cross-entropy",
        title="Trained within a budget (hollow: it does not bind)",
    )  # fmt: skip
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25, lw=0.6)
        axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=150)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("build/feasible_set.json"))
    parser.add_argument("--plot", type=Path, default=Path("build/feasible_set.png"))
    parser.add_argument("--group", default="activities")
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--steps", type=int, default=60, help="of the search, for each budget")
    parser.add_argument("--budgets", type=float, nargs="+", default=BUDGETS)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    options = parser.parse_args()

    backbone = load_backbone("bundled:tiny")
    task = load_bundled(options.group).few_shot(4, 1).base()
    views = training_loader(backbone, task, load_recipe("prompt-ot", SETTINGS), seed=1)
    assert isinstance(views, CachedViews)
    results: dict[str, Any] = {"perturbed": [], "searched": [], "reached": []}
    if options.out.is_file():
        results |= json.loads(options.out.read_text(encoding="utf-8"))
    if not results["perturbed"]:
        results["perturbed"] = perturbed(backbone, task, views, options.seeds)
        write_json(options.out, results)
    if not results["searched"]:
        results["searched"] = searched(backbone, task, views, options.seeds, options.steps)
        write_json(options.out, results)
    done = {(r["form"], r["budget"]) for r in results["reached"]}
    for budget in options.budgets:
        for form in FORMS:
            if (form, budget) not in done:
                found = reached(backbone, task, views, form, budget, options.epochs)
                results["reached"].append(found)
                write_json(options.out, results)
                print({key: round(v, 4) if isinstance(v, float) else v for key, v in found.items()},
                      flush=True)  # fmt: skip
    draw(results, options.plot)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
