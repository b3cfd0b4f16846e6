"""First light on a GPU: the tests marked `cuda`, then a training step beside the plain way.

    python benchmarks/gpu.py --out gpu-results                  # all parts, about five minutes
    python benchmarks/gpu.py --out gpu-results --only step --classes 50

Parts, in this order; each writes OUT/<part>.json when it ends, and a part that fails does not stop
the next:

tests    `pytest -m cuda`: numbers of the CPU, same bits twice, fit, resume, evaluate, predict.
step     a Prompt-OT step of a ViT-B/16 at random weights, batch 4 (and 32), in turns in this
         process: the plain way of `training_step.py` (launched kernel by kernel, bf16 by autocast),
         ours launched so, and ours replayed as the trainer does it. Seconds, kernels, launches,
         peak memory, differences of loss and gradients, whether a replay has the bits of a launched
         step.
plans    exact plans of 4 to 1024 rows, transfers included.
images   features of a ViT-B/16 for images that are decoded already, ours beside the plain way.
fit      the trainer itself on made JPEG files of ImageNet's sizes, loading included.
profile  the kernels that take most of a step.

Without a GPU it runs on the CPU (use --smoke), where kernels and GPU memory are not counted.
What an image for PyTorch may lack stands in `gpu-wheels.txt`.
"""

from __future__ import annotations

import argparse
import gc
import importlib.util
import io
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from _common import (
    GIB,
    SMOKE,
    VIT_B_16,
    Shape,
    build_backbone,
    class_names,
    duration,
    parser,
    save,
    table,
)
from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.data import Batch
from promptot.devices import pick_device
from promptot.graphs import graph_maker
from promptot.objectives import Objective, build_preservation
from promptot.recipes import OptimConfig
from promptot.training.device_step import WARM_UP, DeviceStep
from promptot.training.optimizers import build_optimizer
from promptot.training.train_student import StudentLoss
from promptot.transport import TransportPlan, TransportProblem, solve_exact, squared_euclidean
from training_step import BATCH, DTYPES, Side, count, differences, inputs, ours, plain

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, Any]


@dataclass(frozen=True)
class Setup:
    """What every part is told."""

    shape: Shape
    device: torch.device
    classes: tuple[int, ...]
    precisions: tuple[str, ...]
    seconds: float  # to spend on the turns of one row
    out: Path
    smoke: bool
    tests: str  # which, for -k; all if empty

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    def wait(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def backbone(self, precision: str) -> Backbone:
        return build_backbone(self.shape, precision).to(self.device)


# --- measuring ---------------------------------------------------------------


def turns(setup: Setup, runs: Mapping[str, Callable[[], object]], least: int = 5) -> dict[str, Any]:
    """Seconds of each, A B A B, each waited for: medians and all values."""
    for run in runs.values():
        for _ in range(2):
            run()
    setup.wait()
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    began = time.perf_counter()
    while time.perf_counter() - began < setup.seconds or len(min(seconds.values())) < least:
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            setup.wait()
            seconds[name].append(time.perf_counter() - start)
    return {name: {"median": statistics.median(s), "seconds": s} for name, s in seconds.items()}


def kernels(setup: Setup, run: Callable[[], object]) -> dict[str, Any]:
    """What one call launches: kernels that ran, launches from the host, waits for the device."""
    if not setup.cuda:
        return {}
    run()
    setup.wait()
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        run()
        setup.wait()
    on_device = [e for e in profile.events() or [] if e.device_type.name == "CUDA"]
    ran = [e for e in on_device if not e.name.startswith(("Memcpy", "Memset"))]
    host = Counter(e.name for e in profile.events() or [] if e.device_type.name == "CPU")
    by_name: Counter[str] = Counter()
    for event in ran:
        by_name[event.name] += event.device_time_total
    return {
        "kernels": len(ran),
        "copies_and_fills": len(on_device) - len(ran),
        "kernel_seconds": sum(e.device_time_total for e in on_device) / 1e6,
        "launches": sum(n for name, n in host.items() if re.match(r"cu(da)?\w*Launch", name)),
        # the profiler's own wait at the end is one of the device, not of a stream
        "waits": sum(n for name, n in host.items() if name == "cudaStreamSynchronize"),
        "most_time": [
            {"kernel": name[:120], "seconds": micro / 1e6, "calls": _calls(ran, name)}
            for name, micro in by_name.most_common(25)
        ],
    }


def _calls(events: Sequence[Any], name: str) -> int:
    return sum(event.name == name for event in events)


def peak(setup: Setup, run: Callable[[], object]) -> int | None:
    """Bytes that a call allocates on the GPU beyond what was there."""
    if not setup.cuda:
        return None
    setup.wait()
    gc.collect()
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(setup.device)
    torch.cuda.reset_peak_memory_stats(setup.device)
    run()
    setup.wait()
    return torch.cuda.max_memory_allocated(setup.device) - before


def weight_bytes(backbone: Backbone) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in backbone.state_dict().values())


def rate(setup: Setup, precision: str) -> float:
    """FLOP/s of one large matrix product on this device, TF32 off."""
    size = 256 if setup.smoke or not setup.cuda else 8192
    a, b = (torch.randn(size, size, device=setup.device).to(DTYPES[precision]) for _ in range(2))
    found = turns(setup, {"product": lambda: a @ b})["product"]["median"]
    return 2.0 * size**3 / found


def same_bits(side: Side, times: int = 5) -> bool:
    """Whether several backward passes from one point give one result."""
    seen: list[list[Tensor]] = []
    for _ in range(times):
        loss = side.backpropagate()
        seen.append([loss, *(p.grad.clone() for p in side.parameters if p.grad is not None)])
    return all(torch.equal(a, b) for one in seen[1:] for a, b in zip(seen[0], one, strict=True))


# --- parts -------------------------------------------------------------------


def tests(setup: Setup) -> list[Row]:
    """`pytest -m cuda` in a process of its own; on a CPU, one design only."""
    log = setup.out / "tests.log"
    command = [sys.executable, "-m", "pytest", "-m", "cuda", "--tb=short", "--maxfail=40"]
    command += ["-p", "no:cacheprovider", "tests/behaviour/test_accelerator.py"]
    if setup.tests:
        command += ["-v", "-k", setup.tests]
    elif setup.smoke:
        command += ["-k", "ivlp-ot-queue or features_have"]
    if setup.cuda and importlib.util.find_spec("xdist"):  # a test waits for the host, not the GPU
        command += ["--numprocesses", str(min(8, os.cpu_count() or 1))]
    environ = os.environ | {"PROMPTOT_TEST_DEVICE": str(setup.device)}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "src"), environ.get("PYTHONPATH", "")])
    began = time.perf_counter()
    with log.open("w", encoding="utf-8") as file:
        done = subprocess.run(
            command, cwd=ROOT, env=environ, stdout=file, stderr=subprocess.STDOUT, check=False
        )
    text = log.read_text(encoding="utf-8", errors="replace")
    found = {word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", text)}
    failed = re.findall(r"^(?:FAILED|ERROR) (.+)$", text, re.MULTILINE)
    row = {"exit": done.returncode, "seconds": time.perf_counter() - began, **found}
    print("\n".join(["tests:", *failed[:60]]) if failed else f"tests: {row}", flush=True)
    return [{**row, "failures": failed}]


BATCHES = {500: (BATCH, 32)}
"""Batch sizes of a number of classes, where there are others than the usual one."""


class TrainersStep:
    """Our step as the trainer takes it: `DeviceStep`, with or without graphs."""

    def __init__(self, setup: Setup, model: Student, batch: Batch, replayed: bool) -> None:
        loss = StudentLoss(model, Objective(build_preservation("ot"), strength=10.0))
        assert model.prompts is not None
        parameters = list(model.prompts.parameters())
        optimizer = build_optimizer(parameters, OptimConfig(), deferred=True)
        self.failures: list[str] = []
        graphs = graph_maker(setup.device) if replayed else None
        tell = self.failures.append
        self._step = DeviceStep(parameters, loss, optimizer, graphs, tell)
        self._batch, self.parameters = batch, parameters

    def __call__(self) -> None:
        self._step(self._batch, None)


def step(setup: Setup) -> list[Row]:
    """The plain way, ours launched kernel by kernel, and ours replayed."""
    exact = setup.backbone("fp32")
    rows: list[Row] = []
    for precision in setup.precisions:
        backbone = exact if precision == "fp32" else setup.backbone(precision)
        products = rate(setup, precision)
        for classes in setup.classes:
            for size in BATCHES.get(classes, (BATCH,)):
                row = one_step(setup, classes, size, precision, backbone, exact)
                row |= {"products_per_second": products}
                row["floor_seconds"] = row["needed_flops"] / products
                rows.append(row)
                save(setup.out / "step.json", "gpu step", rows, **about(setup))
                print(_line("step", row), flush=True)
    return rows


def one_step(
    setup: Setup, classes: int, size: int, precision: str, backbone: Backbone, exact: Backbone
) -> Row:
    names, shape = class_names(classes), setup.shape
    our_side, model = ours(shape, names, precision, backbone, size)
    plain_side = plain(shape, names, precision, exact, size)
    row: Row = {"classes": classes, "batch": size, "precision": precision}
    if size == BATCH:
        row["differences"] = differences(shape, names, precision, our_side, plain_side, exact)
        row["same_bits"] = same_bits(our_side)
    images, labels = inputs(shape, classes, size)
    held = Batch(images, labels, torch.arange(size))
    batch = Batch(*(part.pin_memory() for part in held[:3])) if setup.cuda else held
    launched, replayed = (
        TrainersStep(setup, ours(shape, names, precision, backbone, size)[1], batch, graphed)
        for graphed in (False, True)
    )
    row["launched_activation_bytes"] = peak(setup, launched)
    for _ in range(WARM_UP - 1):
        launched()
    began = time.perf_counter()
    for _ in range(WARM_UP):
        replayed()
    setup.wait()
    row["warm_up_seconds"] = time.perf_counter() - began
    row["replayed_activation_bytes"] = peak(setup, replayed)  # it is recorded here
    row["record_seconds"] = time.perf_counter() - began - row["warm_up_seconds"]
    launched()
    equal = []
    for _ in range(5):
        pairs = zip(launched.parameters, replayed.parameters, strict=True)
        equal.append(all(torch.equal(a, b) for a, b in pairs))
        launched()
        replayed()
    row["replay_has_the_bits"] = equal
    row["failures"] = replayed.failures
    runs = {"launched": launched, "replayed": replayed, "plain": plain_side.step}
    row |= turns(setup, runs)
    for name, run in runs.items():
        row[f"{name}_kernels"] = kernels(setup, run)
    row["plain_activation_bytes"] = peak(setup, plain_side.step)
    row["ours_weight_bytes"] = weight_bytes(backbone)
    row["plain_weight_bytes"] = 2 * weight_bytes(exact)
    row["needed_flops"] = count(shape, model, size).total
    return row


def plans(setup: Setup) -> list[Row]:
    """Exact plans by the number of rows, from costs on the device to a plan there."""
    rows = []
    for size in (4, 6, 8) if setup.smoke else (4, 6, 8, 16, 64, 256, 1024):
        points = torch.randn(2, size, 64, device=setup.device)
        cost = TransportProblem(squared_euclidean(*points))

        def solve(cost: TransportProblem = cost) -> TransportPlan:
            return solve_exact(cost)

        rows.append({"rows": size, **turns(setup, {"exact": solve})})
    return rows


def images(setup: Setup) -> list[Row]:
    """Image features per second."""
    from plain import PlainCLIP

    exact = setup.backbone("fp32")
    towers = PlainCLIP(setup.shape, exact.state_dict()).to(setup.device)
    rows = []
    for precision in setup.precisions:
        backbone = exact if precision == "fp32" else setup.backbone(precision)
        for batch in (4,) if setup.smoke else (1, 32, 256):
            side = setup.shape.resolution
            pictures = torch.randn(batch, 3, side, side, device=setup.device)

            @torch.no_grad()
            def own(backbone: Backbone = backbone, pictures: Tensor = pictures) -> Tensor:
                return backbone.encode_image(pictures)

            @torch.no_grad()
            def other(pictures: Tensor = pictures, precision: str = precision) -> Tensor:
                on = precision != "fp32"
                with torch.autocast(setup.device.type, DTYPES[precision], enabled=on):
                    return towers.image_tower(pictures)

            row: Row = {"batch": batch, "precision": precision}
            row["difference"] = float((own() - other().float()).abs().max())
            row |= turns(setup, {"ours": own, "plain": other})
            row |= {f"{name}_images_per_second": batch / row[name]["median"] for name in RIVALS}
            rows.append(row)
    return rows


RIVALS = ("ours", "plain")


def fit(setup: Setup) -> list[Row]:
    """Steps a second of the trainer itself, on JPEG files, with workers."""
    from promptot.data import load_task
    from promptot.recipes import load_recipe
    from promptot.runs.learning import adapt
    from promptot.training.listener import Listener
    from promptot.training.training_log import Log

    rows = []
    workers = 0 if setup.smoke else min(16, os.cpu_count() or 1)
    classes, each, epochs = (2, 4, 2) if setup.smoke else (500, 4, 3)
    with tempfile.TemporaryDirectory() as folder:
        _draw_photographs(Path(folder), class_names(classes), each)
        task = load_task(Path(folder))
        for precision in setup.precisions:
            backbone = setup.backbone(precision)
            ends: list[float] = []
            recipe = load_recipe(
                "prompt-ot",
                [
                    f"optim.epochs={epochs}",
                    f"prompts.text_depth={setup.shape.text_layers}",
                    f"prompts.vision_depth={setup.shape.image_layers}",
                ],
            )
            listener = Listener(
                on_epoch=lambda record, ends=ends: ends.append(time.time()), on_warning=print
            )
            adapt(backbone, task, recipe, Log(None), workers=workers, listener=listener)
            steps = classes * each // recipe.optim.batch_size
            row = {"precision": precision, "classes": classes, "workers": workers, "steps": steps}
            row["step_seconds"] = (ends[-1] - ends[0]) / ((len(ends) - 1) * steps)
            rows.append(row)
            print(f"fit, {precision}: {duration(row['step_seconds'])} a step", flush=True)
    return rows


DIFFERENT = 64
"""Made pictures that differ; the others are copies, which cost a decoder as much."""


def _draw_photographs(folder: Path, names: Sequence[str], each: int) -> None:
    """JPEG files of 500 x 375 pixels whose detail costs a decoder what a photograph's does."""
    import numpy as np
    from PIL import Image

    generator = np.random.default_rng(0)
    pictures: list[bytes] = []
    for number, name in enumerate(names):
        place = folder / f"{number:03d} {name.replace('/', ' ')}"
        place.mkdir()
        for index in range(each):
            if len(pictures) < DIFFERENT:
                coarse = generator.integers(0, 255, (24, 32, 3), dtype=np.uint8)
                picture = np.asarray(Image.fromarray(coarse).resize((500, 375)), dtype=np.int16)
                noise = generator.integers(-12, 12, picture.shape, dtype=np.int16)
                pixels = np.clip(picture + noise, 0, 255).astype(np.uint8)
                file = io.BytesIO()
                Image.fromarray(pixels).save(file, "JPEG", quality=90)
                pictures.append(file.getvalue())
            content = pictures[(number * each + index) % len(pictures)]
            (place / f"{index}.jpg").write_bytes(content)


def profile(setup: Setup) -> list[Row]:
    """The kernels of one step at the smallest and the largest number of classes."""
    rows = []
    for precision in setup.precisions:
        backbone = setup.backbone(precision)
        for classes in sorted({min(setup.classes), max(setup.classes)}):
            side, _ = ours(setup.shape, class_names(classes), precision, backbone)
            rows.append({"classes": classes, "precision": precision, **kernels(setup, side.step)})
    return rows


PARTS: dict[str, Callable[[Setup], list[Row]]] = {
    "tests": tests,
    "step": step,
    "plans": plans,
    "images": images,
    "fit": fit,
    "profile": profile,
}


# --- report ------------------------------------------------------------------


def about(setup: Setup) -> dict[str, Any]:
    """Card, versions and commit."""
    found: dict[str, Any] = {
        "device": str(setup.device),
        "cores": os.cpu_count(),
        "batch": BATCH,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "smoke": setup.smoke,
        "commit": _commit(),
    }
    if setup.cuda:
        properties = torch.cuda.get_device_properties(setup.device)
        found |= {
            "card": properties.name,
            "memory": properties.total_memory,
            "cuda": torch.version.cuda,
        }
    return found


def _commit() -> str:
    """Of this checkout; PROMPTOT_COMMIT tells it where the files came without their history."""
    if "PROMPTOT_COMMIT" in os.environ:
        return os.environ["PROMPTOT_COMMIT"]
    asked = ["git", "-C", str(ROOT), "rev-parse", "--short", "HEAD"]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    return done.stdout.strip()


WAYS = ("plain", "launched", "replayed")


def _line(part: str, row: Row) -> str:
    times = ", ".join(f"{name} {duration(row[name]['median'])}" for name in WAYS)
    sizes = f"{row['precision']}, {row['classes']} classes, batch {row['batch']}"
    return f"{part}: {sizes}: {times} {row['failures'] or ''}"


def step_table(rows: Sequence[Row]) -> str:
    """One line a number of classes, batch size and precision."""

    def gib(row: Row, name: str) -> str:
        kept = row[f"{name}_activation_bytes"]
        weights = row["plain_weight_bytes" if name == "plain" else "ours_weight_bytes"]
        return "–" if kept is None else f"{(kept + weights) / GIB:.2f}"

    header = ["classes", "batch", "", "plain way", "launched", "replayed", "ratio", "floor"]
    header += ["kernels, plain", "replayed", "launches", "peak GiB, plain", "replayed"]
    header += ["loss, gradient", "bits"]
    lines = []
    for row in rows:
        pair = row.get("differences", {})
        pair = pair.get("ours_plain") or pair.get("ours_fp32")
        equal = row["replay_has_the_bits"]
        lines.append(
            [
                str(row["classes"]),
                str(row["batch"]),
                row["precision"],
                *(duration(row[name]["median"]) for name in WAYS),
                f"{row['plain']['median'] / row['replayed']['median']:.2f}x",
                duration(row["floor_seconds"]),
                *(str(row[f"{n}_kernels"].get("kernels", "–")) for n in ("plain", "replayed")),
                str(row["replayed_kernels"].get("launches", "–")),
                *(gib(row, name) for name in ("plain", "replayed")),
                "–" if pair is None else f"{pair['loss']:.0e}, {pair['gradient']:.0e}",
                f"{sum(equal)} of {len(equal)}",
            ]
        )
    return (
        f"{table(header, lines)}\n\nReplayed: as CUDA graphs, where there is CUDA. Differences: in "
        "fp32 from the plain way, in bf16 from ours in fp32. Peak: weights and one step. Floor: "
        "needed FLOPs at the rate of one large product. Bits: replays after which the parameters "
        "are those of launched steps."
    )


def plans_table(rows: Sequence[Row]) -> str:
    lines = [[str(row["rows"]), duration(row["exact"]["median"])] for row in rows]
    return table(["rows", "an exact plan"], lines)


def goals_table(results: Mapping[str, Sequence[Row]]) -> str:
    """What is aimed at on one H100 or H200, and what was measured."""
    steps = {
        (row["classes"], row["batch"]): row
        for row in results.get("step", ())
        if row["precision"] == "bf16"
    }
    lines = []

    def add(what: str, goal: str, measured: Callable[[], str]) -> None:
        try:
            lines.append([what, goal, measured()])
        except (KeyError, TypeError, StopIteration):  # that part did not run, or not on a GPU
            lines.append([what, goal, "–"])

    def ratio(classes: int, size: int = BATCH) -> str:
        row = steps[classes, size]
        return f"{row['plain']['median'] / row['replayed']['median']:.1f}x"

    def fitted() -> float:
        row = next(row for row in results["fit"] if row["precision"] == "bf16")
        return float(row["step_seconds"])

    def memory() -> str:
        row = steps[1000, BATCH]
        return f"{(row['replayed_activation_bytes'] + row['ours_weight_bytes']) / 1e9:.2f} GB"

    add(
        "step, 50 classes, batch 4",
        "≤ 4 ms, ≥ 2.5x",
        lambda: f"{duration(steps[50, BATCH]['replayed']['median'])}, {ratio(50)}",
    )
    add("step, 500 classes, batch 4", "≥ 6x", lambda: ratio(500))
    add("step, 1000 classes, batch 4", "≥ 9x", lambda: ratio(1000))
    add("step, 500 classes, batch 32", "≥ 2.5x", lambda: ratio(500, 32))
    add(
        "kernels of a replay, 50 classes",
        "≤ 1200",
        lambda: str(steps[50, BATCH]["replayed_kernels"]["kernels"]),
    )
    add(
        "launches from Python a step",
        "≤ 20",
        lambda: str(steps[50, BATCH]["replayed_kernels"]["launches"]),
    )
    add("peak memory, 1000 classes, batch 4", "≤ 2 GB", memory)
    add(
        "80,000 steps with 500 classes, images included",
        "≤ 8 min",
        lambda: duration(80_000 * fitted()),
    )
    add(
        "527,040 steps, images included",
        "≤ 45 min",
        lambda: duration(527_040 * fitted()),
    )
    add(
        "prediction from decoded images, images/s",
        "≥ 5000",
        lambda: f"{max(r['ours_images_per_second'] for r in results['images']):.0f}",
    )
    return f"bf16:\n\n{table(['', 'goal', 'measured'], lines)}"


def images_table(rows: Sequence[Row]) -> str:
    header = ["batch", "", "plain, images/s", "ours, images/s", "largest difference"]
    return table(
        header,
        [
            [
                str(row["batch"]),
                row["precision"],
                f"{row['plain_images_per_second']:.0f}",
                f"{row['ours_images_per_second']:.0f}",
                f"{row['difference']:.0e}",
            ]
            for row in rows
        ],
    )


def fit_table(rows: Sequence[Row]) -> str:
    header = ["classes", "", "workers", "a step, loading included"]
    return table(
        header,
        [
            [
                str(row["classes"]),
                row["precision"],
                str(row["workers"]),
                duration(row["step_seconds"]),
            ]
            for row in rows
        ],
    )


TABLES = {"step": step_table, "plans": plans_table, "images": images_table, "fit": fit_table}


def main() -> int:
    options_parser: argparse.ArgumentParser = parser(__doc__.splitlines()[0])
    options_parser.add_argument("--out", type=Path, default=Path("gpu-results"), help="folder")
    options_parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    options_parser.add_argument("--device", default="auto")
    options_parser.add_argument("--classes", type=int, nargs="+", default=[50, 500, 1000])
    options_parser.add_argument("--precisions", nargs="+", choices=DTYPES, default=list(DTYPES))
    options_parser.add_argument("--tests", default="", help="as pytest's -k takes them")
    options_parser.add_argument("--seconds", type=float, default=2.0, help="of turns a row")
    options = options_parser.parse_args()
    chosen = (options.only or ",".join(PARTS)).split(",")
    unknown = [name for name in chosen if name not in PARTS]
    if unknown:
        options_parser.error(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    options.out.mkdir(parents=True, exist_ok=True)
    setup = Setup(
        SMOKE if options.smoke else VIT_B_16,
        pick_device(options.device),
        (3,) if options.smoke else tuple(options.classes),
        tuple(options.precisions),
        0.0 if options.smoke else options.seconds,
        options.out,
        options.smoke,
        options.tests,
    )
    results: dict[str, list[Row]] = {}
    failed = False
    for name in chosen:
        began = time.perf_counter()
        try:
            results[name] = PARTS[name](setup)
            failed |= any(row.get("exit", 0) for row in results[name])
            save(setup.out / f"{name}.json", f"gpu {name}", results[name], **about(setup))
        except Exception:  # the next part may well work, and the machine is there now
            failed = True
            traceback.print_exc()
        if setup.cuda:
            torch.cuda.empty_cache()
        print(f"{name}: {time.perf_counter() - began:.0f} s", flush=True)
    print(f"\n{about(setup)}")
    for name, show in TABLES.items():
        if results.get(name):
            print(f"\n{show(results[name])}")
    print(f"\n{goals_table(results)}")
    if "tests" in results:
        print(f"\ntests: { {k: v for k, v in results['tests'][0].items() if k != 'failures'} }")
    return int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
