"""The experiment: every method, every protocol, on the bundled drawings.

Every trained method gets the same data, views, epochs and batch (`BUDGET`) and the same number of
tried settings (`TRIED`). Settings are chosen by the harmonic mean of base and novel accuracy on the
validation styles; only then are the test styles looked at. Everything goes on after an
interruption, because each stage is a `promptot benchmark`, which runs only what is missing:

    python benchmarks/experiments.py tune        # choose settings on the validation styles
    python benchmarks/experiments.py compare     # all methods, all protocols, test styles
    python benchmarks/experiments.py strength    # the ablation over λ
    python benchmarks/experiments.py elsewhere   # the best transports on other groups
    python benchmarks/experiments.py same        # transports beside the control at their settings
    python benchmarks/experiments.py tables      # what is finished, as Markdown

With `--report-only` every stage but `tune` sums up the lines that are there and trains nothing.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from promptot.backbones import Backbone, load_backbone
from promptot.experiments import benchmark
from promptot.experiments.benchmarking import RESULTS, Benchmark
from promptot.experiments.cell_progress import BenchmarkListener
from promptot.experiments.cell_record import CellRecord
from promptot.files.writing import write_json

BUDGET = ("data.views=4", "optim.batch_size=32", "optim.epochs=8", "optim.drop_last=false")
"""What every method changes of its published schedule, so that all see the same images as often."""
SHOTS = 4
SEEDS = (1, 2, 3, 4, 5)
FEW_SEEDS = SEEDS[:3]
"""Where there are many cells: the ablation over λ, and few-shot."""
TUNED_ON = ("bundled:animals", "bundled:food")
ELSEWHERE = ("bundled:activities", "bundled:travel", "bundled:objects")
FREE = [f"optim.lr={lr}" for lr in (0.006, 0.02, 0.06, 0.2)]
"""The settings of a method that preserves nothing: four learning rates."""


def held(strength: float, extra: str = "") -> list[str]:
    """Those of a method with a strength: two learning rates, twice and half the published λ."""
    return [
        f"optim.lr={lr},objective.strength={factor * strength:g}{extra}"
        for lr in (0.02, 0.06)
        for factor in (0.5, 2)
    ]


def soft(option: str, low: float, high: float, extra: str = "") -> list[str]:
    """Those of a transport with one more option: two values of it, twice and half the λ."""
    return [
        f"optim.lr=0.06,objective.strength={strength:g},{option}={value:g}{extra}"
        for value in (low, high)
        for strength in (5, 20)
    ]


UNTUNED = ("zero-shot", "zero-shot-7", "zero-shot-80", "linear-probe")
PEERS: Mapping[str, tuple[str, list[str]]] = {  # name: recipe, settings
    "coop": ("coop", FREE),
    "coop-class-specific": ("coop-class-specific", FREE),
    "cocoop": ("cocoop", FREE),
    "kgcoop": ("kgcoop", held(8)),
    "vpt": ("vpt", FREE),
    "ivlp": ("ivlp", FREE),
    "maple": ("maple", FREE),
    "promptsrc": ("promptsrc", held(1, ",ensembling.mean=null,ensembling.sd=2")),
    "pointwise": ("pointwise", held(10)),
    "prompt-ot": ("prompt-ot", held(10)),
}
SINKHORN = "objective.solver=sinkhorn-divergence"
WORDS = "vocabulary.solver=sinkhorn-divergence"
TRANSPORTS: Mapping[str, tuple[str, list[str]]] = {
    "ot-separate": ("prompt-ot-separate", held(10)),
    "ot-entropic": ("prompt-ot-entropic", soft("objective.epsilon", 0.05, 0.3)),
    "ot-debiased": ("prompt-ot-sinkhorn", soft("objective.epsilon", 0.3, 1)),
    "ot-unbalanced": ("prompt-ot-unbalanced", soft("objective.epsilon", 0.3, 1)),
    "ot-partial": ("prompt-ot-partial", soft("objective.mass", 0.7, 0.9)),
    "ot-queue": (
        "prompt-ot-queue",
        soft("objective.epsilon", 0.1, 0.3, f",objective.queue=256,{SINKHORN}"),
    ),
    "words-pointwise": ("prompt-ot-vocabulary", held(10, ",vocabulary=pointwise")),
    "words-ot": (
        "prompt-ot-vocabulary",
        soft("vocabulary.epsilon", 0.1, 0.3, f",{WORDS}"),
    ),
    "debiased-words": (
        "prompt-ot-vocabulary",
        [
            f"optim.lr=0.06,objective.strength={strength},objective.epsilon=0.3,{SINKHORN},{words}"
            for strength in (10, 20)
            for words in ("vocabulary=pointwise", f"vocabulary.epsilon=0.1,{WORDS}")
        ],
    ),
}
POINTWISE_20 = "pointwise-20=pointwise[optim.lr=0.06,objective.strength=20]"
SAME: Mapping[str, Sequence[str]] = {  # the control: transports that have its settings
    POINTWISE_20: (*("ot-debiased", "ot-queue", "ot-entropic", "ot-partial"),),
    "pointwise-5=pointwise[optim.lr=0.06,objective.strength=5]": ("ot-unbalanced",),
}
"""Validation gave transports settings that it did not give the control: that is tested at them as
well, so that a difference is one of the form alone."""
ABLATED = (
    *("pointwise", "prompt-ot", "ot-separate", "ot-entropic", "ot-debiased", "ot-unbalanced"),
    *("ot-partial", "ot-queue", "words-pointwise", "words-ot"),
)
TESTED_ELSEWHERE = ("ot-partial", "ot-queue", "ot-debiased")
PROTOCOLS: Mapping[str, Mapping[str, Any]] = {
    "base-to-novel": {"tasks": TUNED_ON},
    "cross-dataset": {"sources": TUNED_ON[:1]},
    "domain-generalization": {"tasks": TUNED_ON[:1], "shots": (3,)},
    "few-shot": {"tasks": TUNED_ON[:1], "shots": (1, 2, 4), "seeds": FEW_SEEDS},
}


def run(
    protocol: str, out: Path, methods: Sequence[str], backbone: Backbone, **options: Any
) -> Benchmark:
    """One benchmark, with a line a cell on the screen."""
    began = time.perf_counter()

    def tell(record: CellRecord, done: int, total: int) -> None:
        if not record.is_result:
            print(f"  {record.method}: {record.problem}", flush=True)
        print(f"  {protocol} {done}/{total} {record.task} seed {record.seed} "
              f"{record.method}, {time.perf_counter() - began:.0f} s", flush=True)  # fmt: skip

    return benchmark(
        protocol,
        out / protocol,
        methods=",".join(methods),
        overrides=BUDGET,
        backbone=backbone,
        cache=out.parent / "cache",
        listener=BenchmarkListener(on_cell=tell),
        **{"shots": (SHOTS,), "seeds": SEEDS, **options},
    )


def tune(out: Path, names: Sequence[str], backbone: Backbone) -> None:
    """Choose each method's settings on the validation styles; written to `chosen.json`."""
    chosen = load_chosen(out)
    everything = {**PEERS, **TRANSPORTS}
    for name in names or everything:
        recipe, settings = everything[name]
        result = run(
            "base-to-novel",
            out / "tune" / name,
            [f"{recipe}[{setting}]" for setting in settings],
            backbone,
            tasks=TUNED_ON,
            seeds=SEEDS[:1],
            split="validation",
        )
        found = {  # class-specific context has no answer for novel names
            m.label: m.figures.get("harmonic_mean", m.figures["base"]).mean
            for m in result.summary.methods
        }
        best = max(found, key=lambda label: found[label])
        chosen[name] = {"method": best, "tried": found}
        write_json(out / "chosen.json", chosen)
        print(f"{name}: {best} ({found[best]:.3f})", flush=True)


def load_chosen(out: Path) -> dict[str, dict[str, Any]]:
    file = out / "chosen.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def named(chosen: Mapping[str, Mapping[str, Any]], names: Iterable[str]) -> list[str]:
    """Methods at their chosen settings, to be called by their short names."""
    return [f"{name}={chosen[name]['method']}" for name in names]


def compare(
    out: Path, protocols: Sequence[str], backbone: Backbone, report_only: bool = False
) -> None:
    """All methods with their chosen settings, on the test styles."""
    chosen = load_chosen(out)
    methods = [*UNTUNED, *named(chosen, chosen), *SAME]
    for protocol in protocols or PROTOCOLS:
        fitting = [m for m in methods if protocol != "cross-dataset" or "class-specific" not in m]
        result = run(
            protocol,
            out / "compare",
            fitting,
            backbone,
            control="pointwise",
            report_only=report_only,
            **PROTOCOLS[protocol],
        )
        print(f"{protocol}: {result.files[-1]}", flush=True)


def strength(out: Path, backbone: Backbone, report_only: bool = False) -> None:
    """λ from 1 to 100 for the point-wise term and every form of transport, one group."""
    chosen = load_chosen(out)
    methods = []
    for name in ABLATED:
        recipe, _, rest = chosen[name]["method"].partition("[")
        kept = [v for v in rest[:-1].split(",") if not v.startswith("objective.strength=")]
        methods += [
            f"{name} λ={value}={recipe}[{','.join([*kept, f'objective.strength={value}'])}]"
            for value in (1, 3, 10, 30, 100)
        ]
    result = run("base-to-novel", out / "strength", methods, backbone, tasks=TUNED_ON[:1],
                 seeds=FEW_SEEDS, control="pointwise λ=1", report_only=report_only)  # fmt: skip
    print(result.files[-1], flush=True)


def elsewhere(out: Path, backbone: Backbone, report_only: bool = False) -> None:
    """The transports with the best means against the control, on groups that chose no setting."""
    methods = named(load_chosen(out), ("pointwise", *TESTED_ELSEWHERE))
    methods = ["zero-shot", *methods, POINTWISE_20]
    result = run("base-to-novel", out / "elsewhere", methods, backbone,
                 tasks=ELSEWHERE, control="pointwise", report_only=report_only)  # fmt: skip
    print(result.files[-1], flush=True)


def same(out: Path, backbone: Backbone, report_only: bool = False) -> None:
    """Is it the transport, or its λ and learning rate? Beside the point-wise term at the same.

    Every cell is one of `compare` or `elsewhere`; nothing is trained here, `report_only` or not.
    """
    chosen = load_chosen(out)
    places = [("compare", protocol, options) for protocol, options in PROTOCOLS.items()]
    places.append(("elsewhere", "base-to-novel", {"tasks": ELSEWHERE}))
    for method, names in SAME.items():
        control = method.partition("=")[0]
        for stage, protocol, options in places:
            tested = names if stage == "compare" else [n for n in names if n in TESTED_ELSEWHERE]
            if not tested:
                continue
            folder = out / f"{stage}-beside-{control}"
            (folder / protocol).mkdir(parents=True, exist_ok=True)
            shutil.copy(out / stage / protocol / RESULTS, folder / protocol / RESULTS)
            result = run(
                protocol,
                folder,
                [method, *named(chosen, tested)],
                backbone,
                control=control,
                report_only=True,
                **options,
            )
            print(result.files[-1], flush=True)


def tables(out: Path) -> None:
    """Print the tables of every finished stage."""
    for path in sorted(out.glob("*/*/tables.md")):
        print(f"<!-- {path.parent.parent.name} -->\n{path.read_text(encoding='utf-8')}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    unnamed = {"strength": strength, "elsewhere": elsewhere, "same": same}
    parser.add_argument("stage", choices=["tune", "compare", *unnamed, "tables"])
    parser.add_argument("names", nargs="*", help="methods to tune, or protocols to compare")
    parser.add_argument("--out", type=Path, default=Path("build/experiments"))
    parser.add_argument("--report-only", action="store_true", help="train nothing")
    options = parser.parse_args()
    if options.stage == "tables":
        tables(options.out)
        return 0
    backbone = load_backbone("bundled:tiny")
    if options.stage == "tune":
        tune(options.out, options.names, backbone)
    elif options.stage == "compare":
        compare(options.out, options.names, backbone, options.report_only)
    else:
        unnamed[options.stage](options.out, backbone, options.report_only)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
