"""One Prompt-OT training step: ours against the plain way, against the machine's limit.

The plain way is in `plain.py`, what the floor counts is in `flops.py`. Both sides take the same
steps on the same weights, images, prompts and class names, turn by turn in one process; their
losses and gradients are compared first: with each other in fp32, with those of fp32 in bf16. Memory
is measured in a process of its own for each. The machine's rate is measured after every step of
ours, so that a distance to the floor compares what one and the same minute gave to both.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from _common import (
    GIB,
    SMOKE,
    VIT_B_16,
    Shape,
    Timing,
    build_backbone,
    class_names,
    duration,
    interleave,
    matrix_rate,
    parser,
    peak_memory,
    run_alone,
    save,
    table,
)
from flops import NeededFlops, needed_flops
from promptot.adaptation import IVLPPrompts
from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.objectives import Objective, build_preservation
from promptot.training.estimate import check_memory

BATCH = 4
TOKENS = 4
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
PLAIN_REPEATS_ABOVE = (100, 1)  # above so many classes the plain way is timed so often
OVERHEAD_LIMIT = 1.10  # of the products we compute, over those that are needed


class Side:
    """One of the two implementations: takes steps, and shows its loss and gradients."""

    def __init__(self, loss: Callable[[], Tensor], parameters: Sequence[Tensor]) -> None:
        self._loss = loss
        self.parameters = parameters
        self._optimizer = torch.optim.SGD(parameters, lr=0.005, momentum=0.9, weight_decay=5e-4)

    def backpropagate(self) -> Tensor:
        """The loss, 0-d; the gradients are left at the parameters."""
        loss = self._loss()
        self._optimizer.zero_grad()
        loss.backward()
        return loss.detach()

    def step(self) -> Tensor:
        loss = self.backpropagate()
        self._optimizer.step()
        return loss

    def clear(self) -> None:
        """Forget the gradients."""
        self._optimizer.zero_grad()


def inputs(shape: Shape, classes: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """The same images [B, 3, R, R] and labels [B] every time."""
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(batch, 3, shape.resolution, shape.resolution, generator=generator)
    return images, torch.randint(classes, (batch,), generator=generator)


def prompts(shape: Shape) -> IVLPPrompts:
    """The same prompts every time, in every block."""
    generator = torch.Generator().manual_seed(2)
    return IVLPPrompts(
        shape.text_width,
        shape.image_width,
        TOKENS,
        shape.text_layers,
        TOKENS,
        shape.image_layers,
        generator=generator,
    )


def ours(
    shape: Shape,
    names: Sequence[str],
    precision: str,
    backbone: Backbone | None = None,
    batch: int = BATCH,
) -> tuple[Side, Student]:
    """This library's step, through its public interface, on the device of the backbone.

    `backbone` is that of `build_backbone(shape, precision)` where it is there already.
    """
    backbone = backbone or build_backbone(shape, precision)
    images, labels = (tensor.to(backbone.device) for tensor in inputs(shape, len(names), batch))
    model = Student(backbone, prompts(shape).to(backbone.device), names)
    objective = Objective(build_preservation("ot"), strength=10.0)

    def loss() -> Tensor:
        student, teacher = model(images)
        return objective(student, teacher, labels, model.backbone.logit_scale).total

    assert model.prompts is not None
    return Side(loss, list(model.prompts.parameters())), model


def plain(
    shape: Shape,
    names: Sequence[str],
    precision: str,
    backbone: Backbone | None = None,
    batch: int = BATCH,
) -> Side:
    """The plain way on the device of the backbone, whose fp32 weights it uses; bf16 is autocast."""
    from plain import PlainStep  # brings POT, which our side has no use for at four images

    backbone = backbone or build_backbone(shape)
    images, labels = (tensor.to(backbone.device) for tensor in inputs(shape, len(names), batch))
    initial = prompts(shape).to(backbone.device)
    weights = backbone.state_dict()
    module = PlainStep(shape, weights, names, list(initial.text), list(initial.vision))
    module.to(backbone.device)
    autocast = None if precision == "fp32" else DTYPES[precision]
    return Side(lambda: module.loss(images, labels, autocast), [*module.text, *module.vision])


def compare(first: Side, second: Side) -> dict[str, float]:
    """Differences relative to `second`: of the loss, and of the gradients.

    The latter is the largest difference of an entry over the largest entry, of the worst prompt
    tensor.
    """
    losses = first.backpropagate(), second.backpropagate()
    loss = float((losses[0] - losses[1]).abs() / losses[1].abs())
    gradient = 0.0
    for one, two in zip(first.parameters, second.parameters, strict=True):
        assert one.grad is not None
        assert two.grad is not None
        scale = two.grad.abs().max()
        gradient = max(gradient, float((one.grad - two.grad).abs().max() / scale))
    return {"loss": loss, "gradient": gradient}


def differences(
    shape: Shape,
    names: Sequence[str],
    precision: str,
    our_side: Side,
    plain_side: Side | None,
    backbone: Backbone | None = None,
) -> dict[str, dict[str, float]]:
    """Ours against the plain way in fp32; in bf16, each of them against ours in fp32.

    `backbone` is the one in fp32 where it is there already.
    """
    if precision == "fp32":
        return {"ours_plain": compare(our_side, plain_side)} if plain_side else {}
    exact, _ = ours(shape, names, "fp32", backbone)
    sides = {"ours_fp32": our_side, "plain_fp32": plain_side}
    return {name: compare(side, exact) for name, side in sides.items() if side}


def name_lengths(model: Student) -> list[int]:
    """Tokens of each class of its own: its name, the full stop and the end token."""
    tokenizer = model.backbone.tokenizer
    return [len(tokenizer.encode(f"{name}.")) - 1 for name in model.class_names]


def count(shape: Shape, model: Student, batch: int = BATCH) -> NeededFlops:
    return needed_flops(
        shape,
        batch,
        name_lengths(model),
        TOKENS,
        shape.text_layers,
        TOKENS,
        shape.image_layers,
    )


def rate(shape: Shape, own_tokens: int, precision: str) -> float:
    """FLOP/s of the machine: the better of these layers' products and of one large square."""
    seen = BATCH * (1 + TOKENS + (shape.resolution // shape.patch) ** 2)
    layers = [
        (rows, k * width, n * width)
        for rows, width in ((seen, shape.image_width), (own_tokens, shape.text_width))
        for k, n in ((1, 3), (1, 1), (1, 4), (4, 1))
    ]
    square = [(4 * shape.text_width,) * 3]
    seconds = 0.01 if shape == SMOKE else 1.0
    return max(matrix_rate(chosen, DTYPES[precision], seconds) for chosen in (layers, square))


def measure(
    shape: Shape, classes: int, precision: str, options: argparse.Namespace
) -> dict[str, Any]:
    """Everything about one number of classes in one precision."""
    names = class_names(classes)
    our_side, model = ours(shape, names, precision)
    flops = count(shape, model)
    own_tokens = sum(name_lengths(model))
    rates: list[float] = []
    runs: dict[str, Callable[[], None]] = {
        "ours": our_side.step,
        "products": lambda: rates.append(rate(shape, own_tokens, precision)),
    }
    repeats, plain_side = dict.fromkeys(runs, options.repeats), None
    row: dict[str, Any] = {"classes": classes, "precision": precision}
    if classes <= options.skip_plain_above:
        plain_side = plain(shape, names, precision)
        above, few = PLAIN_REPEATS_ABOVE
        runs = {"plain": plain_side.step, **runs}
        repeats["plain"] = few if classes > above else options.repeats
    row["differences"] = differences(shape, names, precision, our_side, plain_side)
    times = interleave(runs, repeats, warm_up=False)  # the comparison was the warm-up
    floors = [flops.total / one for one in rates]
    del times["products"], runs["products"]
    row |= {name: timing.as_dict() for name, timing in times.items()}
    row |= {
        "own_tokens": own_tokens,
        "needed_flops": flops.total,
        "needed_flops_by_part": vars(flops),
        "flops_per_second": rates,
        "floor_seconds": statistics.median(floors),
        "over_floor": statistics.median(
            seconds / floor for seconds, floor in zip(times["ours"].seconds, floors, strict=True)
        ),
    }
    if not options.no_memory:
        for name in runs:
            row[f"{name}_memory"] = run_alone(__file__, _alone(name, classes, precision, options))
    return row


def _alone(name: str, classes: int, precision: str, options: argparse.Namespace) -> list[str]:
    arguments = ["--memory-of", name, "--classes", str(classes), "--precisions", precision]
    smoke = ["--smoke"] if options.smoke else []
    return [*arguments, "--threads", str(options.threads), *smoke]


def memory_of(name: str, shape: Shape, classes: int, precision: str) -> dict[str, int]:
    """Peak resident memory of this process after building, and after two steps, in bytes."""
    names = class_names(classes)
    side = ours(shape, names, precision)[0] if name == "ours" else plain(shape, names, precision)
    built = peak_memory()
    for _ in range(1 if name == "plain" and classes > PLAIN_REPEATS_ABOVE[0] else 2):
        side.step()
    return {"built": built, "peak": peak_memory()}


def check(shape: Shape, classes: Sequence[int]) -> int:
    """Compare the formula with what PyTorch counts in our step; the exit status."""
    from torch.utils.flop_counter import FlopCounterMode

    failed = False
    rows = []
    for number in classes:
        side, model = ours(shape, class_names(number), "fp32")
        needed = count(shape, model).total
        with FlopCounterMode(display=False) as counter:
            side.backpropagate()
        share = counter.get_total_flops() / needed
        failed |= not 1.0 <= share <= OVERHEAD_LIMIT
        counted = counter.get_total_flops() / 1e9
        rows.append([str(number), f"{needed / 1e9:.1f}", f"{counted:.1f}", f"{share:.3f}"])
    print(table(["classes", "needed, GFLOP", "computed, GFLOP", "computed / needed"], rows))
    return int(failed)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """The tables of speed, and of memory and limits."""

    def gib(row: dict[str, Any], name: str, when: str) -> str:
        memory = row.get(f"{name}_memory")
        return f"{memory[when] / GIB:.2f}" if memory else "–"

    def seconds(row: dict[str, Any], name: str) -> str:
        if name not in row:
            return "–"
        timing = Timing(tuple(row[name]["seconds"]))
        spread = f" ({duration(timing.least)} – {duration(timing.most)})"
        return duration(timing.median) + (spread if len(timing.seconds) > 1 else "")

    def differs(row: dict[str, Any], pair: str) -> str:
        found = row["differences"].get(pair)
        return f"{found['loss']:.0e}, {found['gradient']:.0e}" if found else "–"

    plain_fp32 = {
        row["classes"]: row["plain"]["median"]
        for row in rows
        if row["precision"] == "fp32" and "plain" in row
    }

    def over(row: dict[str, Any], seconds: float | None) -> str:
        return f"{seconds / row['ours']['median']:.1f}×" if seconds else "–"

    speed = table(
        [
            "classes",
            "",
            "plain way",
            "ours",
            "ratio",
            "to plain fp32",
            "ours − plain",
            "ours − fp32",
            "plain − fp32",
        ],
        [
            [
                str(row["classes"]),
                row["precision"],
                seconds(row, "plain"),
                seconds(row, "ours"),
                over(row, row["plain"]["median"] if "plain" in row else None),
                over(row, plain_fp32.get(row["classes"])),
                differs(row, "ours_plain"),
                differs(row, "ours_fp32"),
                differs(row, "plain_fp32"),
            ]
            for row in rows
        ],
    )
    limits = table(
        [
            "classes",
            "",
            "plain, peak GiB",
            "(built)",
            "ours, peak GiB",
            "(built)",
            "needed GFLOP",
            "machine GFLOP/s",
            "floor",
            "ours / floor",
        ],
        [
            [
                str(row["classes"]),
                row["precision"],
                gib(row, "plain", "peak"),
                gib(row, "plain", "built"),
                gib(row, "ours", "peak"),
                gib(row, "ours", "built"),
                f"{row['needed_flops'] / 1e9:.0f}",
                f"{statistics.median(row['flops_per_second']) / 1e9:.0f}",
                duration(row["floor_seconds"]),
                f"{row['over_floor']:.2f}",
            ]
            for row in rows
        ],
    )
    note = (
        "Differences: of the loss, and of the gradients (largest entry), relative. Rate, floor and "
        "ours / floor: medians over the turns."
    )
    return f"{speed}\n\n{note}\n\n{limits}"


def measure_library(architecture: str, classes: int, options: argparse.Namespace) -> dict[str, Any]:
    """An architecture of open_clip beside its own modules, in fp32: image, text, a whole step.

    Where ours has to compute texts again for want of memory, the plain way, which can't, is left
    out.
    """
    from library_step import LibraryStep

    step = LibraryStep(architecture, classes, BATCH, options.smoke)
    check_memory(step.student, BATCH)
    again = bool(step.backbone.text_tower.recompute)
    parts = {
        "image": (step.ours_image, step.plain_image),
        "text": (step.ours_text, step.plain_text),
        "step": (step.ours, step.plain),
    }
    row: dict[str, Any] = {"architecture": architecture, "classes": classes, "parts": {}}
    for part, (own, plain_way) in parts.items():
        if part in options.leave_out:
            continue
        runs: dict[str, Callable[[], object]] = {"ours": partial(step.backpropagate, own)}
        found: dict[str, Any] = {"recomputed": again and part != "image"}
        if not found["recomputed"]:
            found["differences"] = step.differences(own, plain_way)
            runs = {"plain": partial(step.backpropagate, plain_way), **runs}
        if part == "text":
            runs["packed"] = partial(step.backpropagate, step.packed_text())
        repeats = dict.fromkeys(runs, options.repeats)
        timings = interleave(runs, repeats, warm_up=part == "text")
        found |= {name: timing.as_dict() for name, timing in timings.items()}
        if "plain" in timings:
            pairs = zip(timings["plain"].seconds, timings["ours"].seconds, strict=True)
            found["ratio"] = statistics.median(slow / fast for slow, fast in pairs)
        row["parts"][part] = found
    return row


def report_libraries(rows: Sequence[dict[str, Any]]) -> str:
    lines = []
    for row in rows:
        for part, found in row["parts"].items():
            packed = found.get("packed")
            plain_way = found.get("plain")
            loss, gradient = found.get("differences", (math.nan, math.nan))
            lines.append(
                [
                    row["architecture"],
                    str(row["classes"]),
                    part,
                    duration(plain_way["median"]) if plain_way else "no memory",
                    duration(found["ours"]["median"]) + (" (again)" if found["recomputed"] else ""),
                    f"{found['ratio']:.2f}×" if plain_way else "–",
                    duration(packed["median"]) if packed else "–",
                    f"{loss:.0e}, {gradient:.0e}" if plain_way else "–",
                ]
            )
    header = ["architecture", "classes", "", "plain way", "ours", "ratio", "packed", "differences"]
    return (
        f"{table(header, lines)}\n\nRatio: median over the turns. Packed: a causal text tower of "
        "the same blocks. Again: texts are computed again in the backward pass, to save memory. "
        "Differences: of the loss, and of the gradients (largest entry), relative."
    )


def main() -> int:
    options_parser = parser(__doc__.splitlines()[0])
    options_parser.add_argument("--classes", type=int, nargs="+", default=[10, 50, 100, 500, 1000])
    options_parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=list(DTYPES))
    options_parser.add_argument("--repeats", type=int, default=5, help="timed steps of each side")
    options_parser.add_argument(
        "--skip-plain-above", type=int, default=500, metavar="N",
        help="leave the plain way out above so many classes (500: minutes and > 15 GB)",
    )  # fmt: skip
    options_parser.add_argument("--no-memory", action="store_true", help="skip memory")
    options_parser.add_argument(
        "--check", action="store_true", help="only compare the floor's FLOPs with PyTorch's count"
    )
    options_parser.add_argument(
        "--architectures", nargs="+", metavar="NAME",
        help="measure these of open_clip beside its own modules, in fp32, instead of ViT-B/16",
    )  # fmt: skip
    options_parser.add_argument(
        "--leave-out", nargs="+", choices=["image", "text", "step"], default=[],
        help="parts of an architecture that are not measured",
    )  # fmt: skip
    options_parser.add_argument("--memory-of", choices=["ours", "plain"], help=argparse.SUPPRESS)
    options = options_parser.parse_args()
    torch.set_num_threads(options.threads)
    shape = SMOKE if options.smoke else VIT_B_16
    if options.memory_of:
        result = memory_of(options.memory_of, shape, options.classes[0], options.precisions[0])
        print(json.dumps(result))
        return 0
    if options.check:
        return check(shape, options.classes)
    rows = []
    for architecture in options.architectures or ():
        for classes in options.classes:
            rows.append(measure_library(architecture, classes, options))
            save(options.json, "training_step", rows, batch=BATCH, prompts=TOKENS)
            print(f"{architecture}, {classes} classes: done", flush=True)
    if options.architectures:
        print(report_libraries(rows))
        return 0
    for precision in options.precisions:
        for classes in options.classes:
            rows.append(measure(shape, classes, precision, options))
            save(options.json, "training_step", rows, batch=BATCH, prompts=TOKENS)
            print(f"{precision}, {classes} classes: done", flush=True)
    print(report(rows))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
