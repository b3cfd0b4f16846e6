"""What the benchmarks share: models at random weights, timing, memory, tables."""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    TextShape,
    TransformerShape,
)
from promptot.backbones.backbone import Backbone
from promptot.backbones.build import build_towers
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import ClipTokenizer, open_clip_module
from promptot.backbones.towers.products import product
from promptot.files.writing import write_json

GIB = 2**30
VOCABULARY = 49_408
CONTEXT_LENGTH = 77
LOGIT_SCALE = 100.0


@dataclass(frozen=True)
class Shape:
    """Sizes of a CLIP; widths are multiples of 64, the size of an attention head."""

    image_width: int = 768
    image_layers: int = 12
    resolution: int = 224
    patch: int = 16
    text_width: int = 512
    text_layers: int = 12
    embed_dim: int = 512


VIT_B_16 = Shape()
SMOKE = Shape(64, 3, 32, 8, 64, 3, 32)  # for trying a benchmark out in seconds


def build_backbone(shape: Shape = VIT_B_16, precision: str = "fp32") -> Backbone:
    """A CLIP of this shape with the same random weights every time."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        image_tower, text_tower = build_towers(
            Architecture(
                shape.embed_dim,
                ImageShape(
                    _transformer(shape.image_width, shape.image_layers),
                    patches=(shape.resolution // shape.patch) ** 2,
                    patch=shape.patch,
                ),
                TextShape(
                    _transformer(shape.text_width, shape.text_layers), VOCABULARY, CONTEXT_LENGTH
                ),
            )
        )
    backbone = Backbone(
        "random",
        image_tower,
        text_tower,
        torch.tensor(LOGIT_SCALE),
        ClipTokenizer(),
        Preprocess(shape.resolution),
    )
    if precision != "fp32":
        backbone.store_matrices(precision)
    return backbone


def _transformer(width: int, layers: int) -> TransformerShape:
    return TransformerShape(width, layers, width // 64, 4 * width, "quick_gelu")


def class_names(count: int) -> list[str]:
    """The first names of ImageNet; beyond 1000 they repeat, numbered, with their real lengths."""
    names = open_clip_module("zero_shot_metadata").IMAGENET_CLASSNAMES
    rounds = -(-count // len(names))
    many = [f"{name} {turn}" if turn else name for turn in range(rounds) for name in names]
    return many[:count]


@dataclass(frozen=True)
class Timing:
    """Seconds of repeated runs."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def least(self) -> float:
        return min(self.seconds)

    @property
    def most(self) -> float:
        return max(self.seconds)

    def as_dict(self) -> dict[str, Any]:
        return {
            "median": self.median,
            "min": self.least,
            "max": self.most,
            "seconds": list(self.seconds),
        }


def interleave(
    runs: Mapping[str, Callable[[], object]], repeats: Mapping[str, int], warm_up: bool = True
) -> dict[str, Timing]:
    """Time functions turn by turn, A B A B, so that a drifting machine treats them alike.

    Args:
        runs: what to time, by name.
        repeats: how often each; the one with more turns goes on alone at the end.
        warm_up: call each once before.
    """
    if warm_up:
        for run in runs.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for turn in range(max(repeats.values())):
        for name, run in runs.items():
            if turn < repeats[name]:
                began = time.perf_counter()
                run()
                seconds[name].append(time.perf_counter() - began)
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def adaptive_repeats(seconds: float, budget: float = 1.0, most: int = 200) -> int:
    """How often to repeat something that takes `seconds` once, within a budget of seconds."""
    return max(3, min(most, int(budget / max(seconds, 1e-9))))


def peak_memory() -> int:
    """The largest resident memory of this process so far, in bytes.

    On Linux, `ru_maxrss` of a process starts from that of the one that started it; VmHWM does not.
    """
    try:
        for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def run_alone(script: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Run a script in a process of its own and read the JSON object it prints last."""
    done = subprocess.run(
        [sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{Path(script).name} {' '.join(arguments)} ended in {done.returncode}")
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result


def environment() -> dict[str, Any]:
    """What the figures depend on."""
    return {
        "cpu": _cpu_name(),
        "threads": torch.get_num_threads(),
        "simd": torch.backends.cpu.get_cpu_capability(),
        "bf16_instructions": torch.cpu._is_avx512_bf16_supported(),
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def matrix_rate(
    shapes: Sequence[tuple[int, int, int]], dtype: torch.dtype, seconds: float = 1.0
) -> float:
    """FLOP/s of the matrix products x [m, k] · w [n, k]ᵀ and g [m, n] · w [n, k], best of several.

    The rate is that of all the shapes (m, k, n) together, each done forward and backward once by
    the faster of PyTorch's usual kernel and the one that promptot picks: what the machine can give
    to these layers.
    """
    flops, best = 0.0, 0.0
    for m, k, n in shapes:
        x, w, g = torch.randn(m, k), torch.randn(n, k), torch.randn(m, n)
        x, w, g = x.to(dtype), w.to(dtype), g.to(dtype)
        took = [float("inf"), float("inf")]
        began = time.perf_counter()
        while time.perf_counter() - began < seconds / len(shapes) or min(took) == float("inf"):
            for i, multiply in enumerate((torch.nn.functional.linear, product)):
                start = time.perf_counter()
                multiply(x, w)
                multiply(g, w.T)
                took[i] = min(took[i], time.perf_counter() - start)
        flops += 4.0 * m * k * n
        best += min(took)
    return flops / best


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best."""
    if seconds < 1e-3:
        return f"{seconds * 1e6:.0f} µs"
    if seconds < 1:
        return f"{seconds * 1e3:.3g} ms"
    return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"


def parser(description: str) -> argparse.ArgumentParser:
    """Options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    made.add_argument("--smoke", action="store_true", help="tiny sizes, seconds, no meaning")
    made.add_argument("--threads", type=int, default=os.cpu_count(), help="of torch")
    made.add_argument("--json", type=Path, help="write all figures here")
    return made


def save(path: Path | None, name: str, rows: Sequence[Mapping[str, Any]], **more: Any) -> None:
    """Write a benchmark's figures, if a path is given."""
    if path is not None:
        write_json(
            path,
            {"benchmark": name, "environment": environment(), **more, "rows": [*map(dict, rows)]},
        )
