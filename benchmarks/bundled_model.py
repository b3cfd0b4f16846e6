"""What the bundled model knows: drawings, photographs, words that it never saw drawn, and its cost.

    python benchmarks/bundled_model.py --only drawings,cost
    python benchmarks/bundled_model.py --root DATA --only caltech101 --split validation
    python benchmarks/bundled_model.py --root DATA --only caltech101 --split test

`--root` is the folder of the public data sets that `promptot data check coop` describes;
Caltech101's test part is measured only with `--split test`. The twenty everyday classes are learnt
from 8 training images each and tested on validation images, whatever `--split` says.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.data import Example, ImageTask, load_image
from promptot.data.catalog.drawings import UNSEEN, list_groups, list_styles, load_bundled
from promptot.data.catalog.public import load_public
from promptot.evaluation.metrics import harmonic_mean, per_class_accuracy
from promptot.files.writing import write_json

EVERYDAY = (
    *("airplane", "bonsai", "butterfly", "chair", "crab", "dolphin", "elephant", "flamingo"),
    *("grand piano", "hedgehog", "helicopter", "kangaroo", "lobster", "panda", "pizza", "scorpion"),
    *("starfish", "sunflower", "umbrella", "watch"),
)
TEMPLATE = "a photo of a {}."
SHOTS = 8
BATCH = 64


@torch.inference_mode()
def encode(backbone: Backbone, examples: Sequence[Example]) -> Tensor:
    """Image features [n, D]."""
    transform = backbone.preprocess.test()
    parts = []
    for start in range(0, len(examples), BATCH):
        images = [transform(load_image(e.path)) for e in examples[start : start + BATCH]]
        parts.append(backbone.encode_image(torch.stack(images)))
    return torch.cat(parts)


@torch.inference_mode()
def zero_shot(
    backbone: Backbone, images: Tensor, labels: Tensor, names: Sequence[str]
) -> dict[str, float]:
    """Accuracy over image features [n, D], and its mean over classes, in percent."""
    text = backbone.encode_text(backbone.tokenize(names, TEMPLATE))
    logits = images @ text.T
    by_class = per_class_accuracy(logits, labels, len(names))
    right = (logits.argmax(1) == labels).float().mean().item()
    return {"accuracy": 100 * right, "over classes": 100 * float(by_class.mean())}


def labels_of(examples: Sequence[Example]) -> Tensor:
    """Labels [n]."""
    return torch.tensor([example.label for example in examples])


def drawings(backbone: Backbone, _: argparse.Namespace) -> dict[str, Any]:
    """Zero-shot accuracy by style: within groups, among all names, and of concepts never drawn."""
    groups = [group for group in list_groups() if group != UNSEEN]
    found: dict[str, dict[str, float]] = {}
    for style in list_styles():
        names: list[str] = []
        images, labels, within = [], [], []
        for group in groups:
            examples, own = _in_style(load_bundled(group), style)
            images.append(encode(backbone, examples))
            within.append(zero_shot(backbone, images[-1], labels_of(examples), own)["accuracy"])
            labels.append(labels_of(examples) + len(names))
            names += own
        unseen, own = _in_style(load_bundled(UNSEEN), style)
        never = zero_shot(backbone, encode(backbone, unseen), labels_of(unseen), own)
        whole = zero_shot(backbone, torch.cat(images), torch.cat(labels), names)
        found[style] = {
            "within groups": sum(within) / len(within),
            "among all names": whole["accuracy"],
            "concepts never drawn": never["accuracy"],
        }
    keys = next(iter(found.values()))
    found["mean"] = {key: sum(row[key] for row in found.values()) / len(found) for key in keys}
    return found


def _in_style(task: ImageTask, style: str) -> tuple[list[Example], tuple[str, ...]]:
    everything = (*task.train, *task.validation, *task.test)
    return [e for e in everything if f"::{style}/" in e.path], task.class_names


def caltech101(backbone: Backbone, options: argparse.Namespace) -> dict[str, Any]:
    """Zero-shot accuracy on base and novel classes."""
    task = load_public("caltech101", options.root).task
    found: dict[str, Any] = {}
    for name, part in (("base", task.base()), ("novel", task.novel())):
        tested = getattr(part, options.split)
        images, labels = encode(backbone, tested), labels_of(tested)
        found[name] = zero_shot(backbone, images, labels, part.class_names)
    found["harmonic mean"] = harmonic_mean(found["base"]["accuracy"], found["novel"]["accuracy"])
    return found | {"split": options.split}


def everyday(backbone: Backbone, options: argparse.Namespace) -> dict[str, Any]:
    """Twenty classes: zero-shot, linear probes of the features, and `fit` from 8 images each."""
    from sklearn.linear_model import LogisticRegression

    whole = load_public("caltech101", options.root).task
    task = whole.select([whole.class_names.index(name) for name in EVERYDAY])
    few = task.few_shot(SHOTS, seed=1)
    tested = encode(backbone, task.validation)
    labels = labels_of(task.validation)
    found: dict[str, Any] = {
        "images": len(labels),
        "zero-shot": zero_shot(backbone, tested, labels, EVERYDAY)["accuracy"],
    }
    for name, examples in (("8 images a class", few.train), ("all training images", task.train)):
        probe = LogisticRegression(C=100, max_iter=2000)
        probe.fit(encode(backbone, examples).numpy(), labels_of(examples).numpy())
        right = torch.from_numpy(probe.predict(tested.numpy())) == labels
        found[f"linear probe, {name}"] = 100 * right.float().mean().item()
    began = time.perf_counter()
    learnt = ImageTask("everyday", EVERYDAY, train=few.train, test=task.validation)
    run = promptot.fit(learnt, backbone=backbone, seed=1, shots=SHOTS, device="cpu")
    found["fit"] = 100 * run.scores["test"].student_accuracy
    found["fit, seconds"] = time.perf_counter() - began
    return found


def cost(backbone: Backbone, options: argparse.Namespace) -> dict[str, Any]:
    """Megabytes, seconds to load it in a new process, and to read and encode 1,000 images."""
    assets = Path(promptot.__file__).parent / "assets"
    files = [path for path in assets.rglob("*") if path.is_file()]
    code = (
        "import time, torch, timm, promptot.backbones as b; t = time.perf_counter();"
        "b.load_backbone('bundled:tiny', 'cpu'); print(time.perf_counter() - t)"
    )
    loads = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, check=True).stdout)
        for _ in range(3)
    ]
    examples = _thousand(options)
    encode(backbone, examples[:BATCH])
    began = time.perf_counter()
    encode(backbone, examples)
    return {
        "megabytes": sum(path.stat().st_size for path in files) / 1e6,
        "seconds to load, after imports": sorted(loads)[1],
        "1,000 images": "photographs" if options.root else "drawings",
        "seconds": time.perf_counter() - began,
        "threads": torch.get_num_threads(),
    }


def _thousand(options: argparse.Namespace) -> list[Example]:
    if options.root:
        return list(load_public("caltech101", options.root).task.train[:1000])
    tasks = [load_bundled(group) for group in list_groups()]
    return [example for task in tasks for example in (*task.train, *task.test)][:1000]


PARTS: dict[str, Callable[[Backbone, argparse.Namespace], dict[str, Any]]] = {
    "drawings": drawings,
    "caltech101": caltech101,
    "everyday": everyday,
    "cost": cost,
}


def main() -> None:
    """Measure the parts that were asked for, and print them."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", default=",".join(PARTS), help="parts, by commas")
    parser.add_argument("--root", type=Path, help="folder of the public data sets")
    parser.add_argument("--split", choices=("validation", "test"), default="validation")
    parser.add_argument("--backbone", default="bundled:tiny")
    parser.add_argument("--out", type=Path, help="also write the figures as JSON")
    options = parser.parse_args()
    unknown = set(options.only.split(",")) - PARTS.keys()
    if unknown:
        parser.error(f"--only takes {', '.join(PARTS)}, not {', '.join(sorted(unknown))}")
    if options.root is None and {"caltech101", "everyday"} & set(options.only.split(",")):
        parser.error("caltech101 and everyday need --root; or say --only drawings,cost")
    backbone = load_backbone(options.backbone, "cpu")
    results: dict[str, Any] = {"weights": backbone.weight_hash()}
    for name in options.only.split(","):
        results[name] = PARTS[name](backbone, options)
        print(name, results[name], flush=True)
    if options.out is not None:
        write_json(options.out, results)


if __name__ == "__main__":
    main()
