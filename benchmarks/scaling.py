"""How one training step grows with classes, batch, image size and prompt depth: figures and a plot.

One quantity varies at a time, the others stay at 100 classes, batch 4, 224 pixels, prompts in all
blocks, on ViT-B/16 at random weights. Every point has a process of its own, so that its peak memory
is its own; "above the weights" is what is left after subtracting the process before its first step.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch
from matplotlib.ticker import MaxNLocator

from _common import (
    GIB,
    SMOKE,
    VIT_B_16,
    Shape,
    Timing,
    build_backbone,
    class_names,
    duration,
    parser,
    peak_memory,
    run_alone,
    save,
    table,
)
from promptot.adaptation import IVLPPrompts
from promptot.adaptation.student import Student
from promptot.files.writing import atomic_write
from promptot.objectives import Objective, build_preservation

COLOURS = {"fp32": "#1f5fa8", "bf16": "#c8551b"}


@dataclass(frozen=True)
class Point:
    """One setting."""

    classes: int = 100
    batch: int = 4
    resolution: int = 224
    depth: int = 12
    precision: str = "fp32"


@dataclass(frozen=True)
class Axis:
    """A quantity that varies, and its values."""

    field: str
    label: str
    values: tuple[int, ...]


AXES = (
    Axis("classes", "classes", (10, 100, 300, 1000)),
    Axis("batch", "images a batch", (1, 4, 8, 16)),
    Axis("resolution", "image side, pixels", (112, 224, 336)),
    Axis("depth", "prompted blocks", (1, 4, 8, 12)),
)
SMOKE_AXES = (
    Axis("classes", "classes", (5, 10)),
    Axis("batch", "images a batch", (1, 2)),
    Axis("resolution", "image side, pixels", (16, 32)),
    Axis("depth", "prompted blocks", (1, 3)),
)


def measure(shape: Shape, point: Point, repeats: int) -> dict[str, Any]:
    """Seconds and peak memory of a step, in this process."""
    generator = torch.Generator().manual_seed(0)
    prompts = IVLPPrompts(
        shape.text_width,
        shape.image_width,
        text_depth=point.depth,
        vision_depth=point.depth,
        generator=generator,
    )
    backbone = build_backbone(replace(shape, resolution=point.resolution), point.precision)
    model = Student(backbone, prompts, class_names(point.classes))
    objective = Objective(build_preservation("ot"), strength=10.0)
    images = torch.randn(point.batch, 3, point.resolution, point.resolution, generator=generator)
    labels = torch.randint(point.classes, (point.batch,), generator=generator)

    def step() -> None:
        student, teacher = model(images)
        objective(student, teacher, labels, backbone.logit_scale).total.backward()

    built = peak_memory()
    step()
    seconds = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - began)
    memory = {"built": built, "peak": peak_memory()}
    return {**asdict(point), **Timing(tuple(seconds)).as_dict(), **memory}


def draw(path: Path, rows: Sequence[dict[str, Any]], axes: Sequence[Axis]) -> None:
    """Time above, memory below, one column for each quantity."""
    plt.rcParams |= {"font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
    figure, panels = plt.subplots(2, len(axes), figsize=(11, 5), sharey="row", squeeze=False)
    for column, axis in enumerate(axes):
        for precision, colour in COLOURS.items():
            chosen = [row for row in rows if row["axis"] == axis.field]
            chosen = [row for row in chosen if row["precision"] == precision]
            if not chosen:
                continue
            at = [row[axis.field] for row in chosen]
            style = {"marker": "o", "markersize": 3.5, "linewidth": 1.5, "color": colour}
            time_panel, memory_panel = panels[:, column]
            time_panel.plot(at, [row["median"] for row in chosen], label=precision, **style)
            least, most = ([row[key] for row in chosen] for key in ("min", "max"))
            time_panel.fill_between(at, least, most, color=colour, alpha=0.2, linewidth=0)
            memory_panel.plot(at, [row["peak"] / GIB for row in chosen], **style)
            memory_panel.plot(
                at, [row["built"] / GIB for row in chosen], color=colour, linestyle=":", linewidth=1
            )
        panels[1, column].set_xlabel(axis.label)
        for panel in panels[:, column]:
            panel.set_xlim(0, 1.06 * max(axis.values))
            panel.xaxis.set_major_locator(MaxNLocator(4, integer=True))
            panel.grid(alpha=0.25, linewidth=0.6)
    for row_of_panels, key in zip(panels, ("max", "peak"), strict=True):
        unit = 1 if key == "max" else GIB
        row_of_panels[0].set_ylim(0, 1.08 * max(row[key] for row in rows) / unit)
    panels[0, 0].set_ylabel("seconds a step")
    panels[1, 0].set_ylabel("peak memory, GiB\n(dotted: before the first step)")
    panels[0, 0].legend(frameon=False, loc="upper left")
    figure.tight_layout()
    with atomic_write(path) as temporary:
        figure.savefig(temporary, dpi=160, format="png")
    plt.close(figure)


def report(rows: Sequence[dict[str, Any]], axes: Sequence[Axis]) -> str:
    """One table for each quantity."""
    parts = []
    for axis in axes:
        lines = [
            [
                str(row[axis.field]),
                row["precision"],
                f"{duration(row['median'])} ({duration(row['min'])} – {duration(row['max'])})",
                f"{row['peak'] / GIB:.2f}",
                f"{(row['peak'] - row['built']) / GIB:.2f}",
            ]
            for row in rows
            if row["axis"] == axis.field
        ]
        parts.append(table([axis.label, "", "step", "peak GiB", "above the weights"], lines))
    return "\n\n".join(parts)


def main() -> int:
    options_parser = parser(__doc__.splitlines()[0])
    options_parser.add_argument(
        "--precisions", nargs="+", choices=list(COLOURS), default=list(COLOURS)
    )
    options_parser.add_argument("--repeats", type=int, default=3)
    options_parser.add_argument("--plot", type=Path, help="write the plot here (PNG)")
    options_parser.add_argument("--point", help=argparse.SUPPRESS)
    options = options_parser.parse_args()
    torch.set_num_threads(options.threads)
    shape, axes = (SMOKE, SMOKE_AXES) if options.smoke else (VIT_B_16, AXES)
    standard = Point(10, 2, 32, 3) if options.smoke else Point()
    if options.point:
        print(json.dumps(measure(shape, Point(**json.loads(options.point)), options.repeats)))
        return 0
    rows: list[dict[str, Any]] = []
    done: dict[Point, dict[str, Any]] = {}
    common = ["--threads", str(options.threads), "--repeats", str(options.repeats)]
    common += ["--smoke"] if options.smoke else []
    for axis in axes:
        for value in axis.values:
            for precision in options.precisions:
                point = replace(standard, **{axis.field: value}, precision=precision)
                if point not in done:
                    done[point] = run_alone(
                        __file__, ["--point", json.dumps(asdict(point)), *common]
                    )
                rows.append({"axis": axis.field, **done[point]})
        save(options.json, "scaling", rows)
        print(f"{axis.label}: done", flush=True)
    print(report(rows, axes))
    if options.plot:
        draw(options.plot, rows, axes)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
