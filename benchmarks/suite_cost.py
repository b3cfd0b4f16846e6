"""What the public suite costs on one GPU: an estimate from counted arithmetic and stated rates.

    hours = Σ over cells [ steps · max(F / (u · R), ops · t) + tested images · f / (u · R) ] / 3600

F: operations of a step (`flops.py`, for the classes of each data set, names as long as
ImageNet's); f: of one prompted test image; R: peak of the GPU's matrix units; u: share of it that
is reached; ops: kernels that a step launches, counted by the profiler on a model of as many blocks;
t: time to launch one. R, u and t are stated, not measured: `promptot benchmark --estimate` measures
on your machine.

    python benchmarks/suite_cost.py --rate 312 --share 0.3 --launch 10
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from _common import VIT_B_16, Shape, build_backbone, class_names, parser, save, table
from flops import needed_flops
from promptot.data.catalog.public import PublicSet, find_set
from promptot.experiments.suite import load_suite
from promptot.recipes import load_recipe
from promptot.runs.learning import build_objective, untrained_model

SHOTS = 16
# These only look at memory in another way, or ask for some.
WITHOUT_KERNEL = frozenset(
    [
        "alias",
        "as_strided",
        "as_strided_",
        "chunk",
        "contiguous",
        "detach",
        "empty",
        "empty_like",
        "empty_strided",
        "expand",
        "flatten",
        "is_nonzero",
        "lift_fresh",
        "narrow",
        "permute",
        "promote_types",
        "_reshape_alias",
        "reshape",
        "resize_",
        "resolve_conj",
        "resolve_neg",
        "result_type",
        "select",
        "set_",
        "slice",
        "split",
        "split_with_sizes",
        "squeeze",
        "t",
        "to",
        "transpose",
        "unflatten",
        "unsqueeze",
        "_unsafe_view",
        "view",
        "view_as",
    ]
)
NARROW = Shape(64, 12, 32, 8, 64, 12, 32)  # as many blocks as a ViT-B/16, and no work in them


@dataclass(frozen=True)
class Cost:
    """One seed of one method in one protocol."""

    name: str
    steps: int
    petaflops: float  # of training
    tested: int
    step_seconds: float  # at the stated rates

    def hours(self, options: argparse.Namespace, image_flops: float) -> float:
        reached = options.rate * 1e12 * options.share
        return (self.steps * self.step_seconds + self.tested * image_flops / reached) / 3600


def launched(classes: int) -> int:
    """Kernels that one step of Prompt-OT launches: leaf operations that the profiler sees."""
    backbone = build_backbone(NARROW)
    recipe = load_recipe("prompt-ot")
    model = untrained_model(backbone, tuple(class_names(classes)), recipe)
    objective = build_objective(recipe, steps=1)
    images, labels = torch.rand(4, 3, 32, 32), torch.arange(4)

    def step() -> None:
        student, teacher = model(images)
        objective(student, teacher, labels, backbone.logit_scale).total.backward()

    step()
    with profile(activities=[ProfilerActivity.CPU]) as seen:
        step()
    return sum(_kernels(event) for event in seen.events() if event.cpu_parent is None)


def _kernels(event: FunctionEvent) -> int:
    """Kernels that an operation launches: those of its parts, or else its own one."""
    parts = sum(_kernels(part) for part in event.cpu_children)
    name = event.name.rpartition("::")
    return parts or int(bool(name[1]) and name[2] not in WITHOUT_KERNEL)


def costs(options: argparse.Namespace, image_flops: float) -> list[Cost]:
    """Prompt-OT's published recipe, one seed."""
    suite = load_suite("coop")
    tasks, domains = suite.sets("base-to-novel"), suite.sets("domain-generalization")
    found = [
        _cost(f"base-to-novel, {f.name}", (f.classes + 1) // 2, _tested([f]), options)
        for f in tasks
    ]
    source = find_set(suite.source)
    found.append(_cost("cross-dataset", source.classes, _tested(tasks), options))
    shared = Cost("domain-generalization (model shared)", 0, 0.0, _tested(domains), 0.0)
    return [*found, shared]


def _tested(sets: Sequence[PublicSet]) -> int:
    return sum(sum(facts.test_images.values()) for facts in sets)


def _cost(name: str, classes: int, tested: int, options: argparse.Namespace) -> Cost:
    recipe = load_recipe("prompt-ot")
    steps = SHOTS * classes // recipe.optim.batch_size * recipe.optim.epochs
    backbone = build_backbone(NARROW)
    # the name, the full stop and the end token; the prefix is counted apart
    lengths = [len(ids) - 1 for ids in backbone.tokenize_names(class_names(classes), 4)]
    flops = needed_flops(VIT_B_16, recipe.optim.batch_size, lengths).total
    arithmetic = flops / (options.rate * 1e12 * options.share)
    seconds = max(arithmetic, options.ops * options.launch * 1e-6)
    return Cost(name, steps, steps * flops / 1e15, tested, seconds)


def main() -> None:
    made = parser(__doc__ or "")
    made.formatter_class = argparse.RawDescriptionHelpFormatter
    made.add_argument("--rate", type=float, default=312.0, help="TFLOP/s, peak (A100, bf16)")
    made.add_argument("--share", type=float, default=0.3, help="of the peak that is reached")
    made.add_argument("--launch", type=float, default=10.0, help="µs a kernel")
    options = made.parse_args()
    options.ops = launched(50)
    one = needed_flops(VIT_B_16, 4, [4])
    image_flops = (one.stem + one.teacher_image) / 4
    found = costs(options, image_flops)
    rows = [
        [
            cost.name,
            f"{cost.steps:,}",
            f"{cost.petaflops:,.0f}",
            f"{1000 * cost.step_seconds:.0f} ms",
            f"{cost.tested:,}",
            f"{cost.hours(options, image_flops):.2f}",
        ]
        for cost in found
    ]
    total = sum(cost.hours(options, image_flops) for cost in found)
    print(table(["one seed", "steps", "PFLOP", "a step", "test images", "hours"], rows))
    print(
        f"\n{options.ops} kernels a step at 50 classes; {image_flops / 1e9:.1f} GFLOP an image. "
        f"One seed {total:.1f} h, three {3 * total:.1f} h, at {options.rate:g} TFLOP/s · "
        f"{options.share:g} and {options.launch:g} µs a kernel: an estimate."
    )
    save(options.json, "suite cost", [vars(cost) for cost in found], kernels=options.ops)


if __name__ == "__main__":
    main()
