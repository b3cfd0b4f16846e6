"""Images per second, from files on disk to labels: ours against a plain open_clip loop.

Both read the same JPEG files and the same weights (random, in open_clip's folder format). The plain
loop is the usual one: `DataLoader`, open_clip's own preprocessing, `encode_image`, normalise, a
product with the text features, argmax; bf16 is autocast there. Ours is `Classifier.classify`. Both
start their worker processes anew in every pass. Text features are made before the clock starts;
what they take is a table of its own.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from _common import class_names, duration, interleave, parser, save, table
from promptot import load_backbone
from promptot.adaptation import IVLPPrompts
from promptot.runs.adapter import save_adapter
from promptot.runs.classifier import Classifier, load

BATCH = 32
TEMPLATE = "a photo of a {}."
SMOKE_CONFIG: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8},
    "text_cfg": {
        "context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2,
    },
}  # fmt: skip


def write_images(folder: Path, count: int, size: tuple[int, int]) -> list[Path]:
    """Pictures with the detail and the file size of photographs."""
    generator = torch.Generator().manual_seed(0)
    width, height = size
    paths = []
    for number in range(count):
        picture = torch.full((1, 3, height, width), 128.0)
        for cell in (2, 8, 32, 128):
            noise = torch.randn(1, 3, height // cell + 2, width // cell + 2, generator=generator)
            grown = F.interpolate(noise, size=(height, width), mode="bicubic")
            picture += 10 * cell**0.5 * grown
        pixels = picture[0].clamp(0, 255).byte().permute(1, 2, 0)
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray(pixels.numpy()).save(paths[-1], quality=90)
    return paths


def write_model(folder: Path, name: str) -> None:
    """Random weights as open_clip reads them from `local-dir:<folder>`."""
    config = SMOKE_CONFIG if name == "smoke" else open_clip.get_model_config(name)
    torch.manual_seed(0)
    model = open_clip.CLIP(**config)
    folder.mkdir()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    preprocess = {"mean": open_clip.OPENAI_DATASET_MEAN, "std": open_clip.OPENAI_DATASET_STD}
    described = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(described), encoding="utf-8")


class Files(Dataset[Tensor]):
    """Image files through a transform."""

    def __init__(self, paths: Sequence[Path], transform: Callable[[Image.Image], Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        return self.transform(Image.open(self.paths[index]))


class PlainLoop:
    """The usual zero-shot loop with open_clip."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        spec = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(spec)
        self.model.eval()
        tokenizer = open_clip.get_tokenizer(spec)
        began = time.perf_counter()
        with torch.no_grad():
            texts = tokenizer([TEMPLATE.format(name) for name in names])
            text = torch.cat([self.model.encode_text(part) for part in texts.split(100)])
            self.text = F.normalize(text, dim=-1)
        self.text_seconds = time.perf_counter() - began

    def runner(self, paths: Sequence[Path], workers: int, bf16: bool) -> Callable[[], list[int]]:
        loader = DataLoader(Files(paths, self.preprocess), BATCH, num_workers=workers)

        def run() -> list[int]:
            labels: list[int] = []
            with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                for images in loader:
                    features = F.normalize(self.model.encode_image(images), dim=-1)
                    labels += (100 * features @ self.text.T).argmax(dim=1).tolist()
            return labels

        return run


def our_runner(
    classifier: Classifier, paths: Sequence[Path], workers: int
) -> Callable[[], list[int]]:
    """Ours, as a user calls it."""
    places = {name: place for place, name in enumerate(classifier.class_names)}

    def run() -> list[int]:
        found = classifier.classify(paths, workers=workers)
        return [places[prediction.class_names[0]] for prediction in found]

    return run


def load_ours(folder: Path, names: Sequence[str], precision: str, prompted: bool) -> Classifier:
    """The classifier of an adapter with or without prompts, read from disk."""
    spec = f"open_clip:local-dir:{folder}"
    backbone = load_backbone(spec)
    prompts = None
    if prompted:
        image, text = backbone.image_tower, backbone.text_tower
        prompts = IVLPPrompts(
            text.width, image.width, text_depth=text.layers, vision_depth=image.layers
        )
    adapter = folder.parent / f"adapter-{prompted}"
    save_adapter(adapter, prompts, backbone, tuple(names), TEMPLATE)
    return load(adapter, spec, precision=precision)


def measure(folder: Path, options: argparse.Namespace) -> tuple[list[dict[str, Any]], str]:
    """Images per second of every way, and what the text features take."""
    paths = write_images(folder, options.images, (500, 375))
    write_model(folder / "model", options.model)
    names = class_names(options.classes)
    plain = PlainLoop(folder / "model", names)
    rows: list[dict[str, Any]] = []
    text_seconds = {"plain open_clip": plain.text_seconds}
    expected = plain.runner(paths, 0, False)()
    for precision in options.precisions:
        ours = {
            label: load_ours(folder / "model", names, precision, prompted)
            for label, prompted in (("ours", False), ("ours, prompted", True))
        }
        backbone = ours["ours"].model.backbone
        began = time.perf_counter()
        backbone.encode_text(backbone.tokenize(names, TEMPLATE))
        text_seconds[f"ours, {precision}"] = time.perf_counter() - began
        for workers in options.workers:
            runs = {"plain open_clip": plain.runner(paths, workers, precision == "bf16")}
            for label, classifier in ours.items():
                runs[label] = our_runner(classifier, paths, workers)
            labels = {label: run() for label, run in runs.items()}
            times = interleave(runs, dict.fromkeys(runs, options.repeats), warm_up=False)
            rows += [
                {
                    "precision": precision,
                    "workers": workers,
                    "way": label,
                    "images_per_second": len(paths) / timing.median,
                    "agrees_with_plain_fp32": None
                    if "prompted" in label
                    else sum(map(int.__eq__, labels[label], expected)) / len(paths),
                    **timing.as_dict(),
                }
                for label, timing in times.items()
            ]
    made = [[label, duration(seconds)] for label, seconds in text_seconds.items()]
    return rows, table(["text features", f"{options.classes} names"], made)


def report(rows: Sequence[dict[str, Any]]) -> str:
    """A line a precision, number of workers and way, against the plain loop."""

    def plain(precision: str, workers: int) -> float:
        return next(
            row["images_per_second"]
            for row in rows
            if (row["precision"], row["workers"]) == (precision, workers)
            and row["way"].startswith("plain")
        )

    first = rows[0]["precision"]
    return table(
        ["way", "", "workers", "images/s", "of plain", f"of plain {first}", "same label"],
        [
            [
                row["way"],
                row["precision"],
                str(row["workers"]),
                f"{row['images_per_second']:.1f}",
                f"{row['images_per_second'] / plain(row['precision'], row['workers']):.2f}×",
                f"{row['images_per_second'] / plain(first, row['workers']):.2f}×",
                "–"
                if row["agrees_with_plain_fp32"] is None
                else f"{row['agrees_with_plain_fp32']:.0%}",
            ]
            for row in rows
        ],
    )


def main() -> int:
    options_parser = parser(__doc__.splitlines()[0])
    options_parser.add_argument("--model", default="ViT-B-16-quickgelu", help="open_clip's name")
    options_parser.add_argument("--images", type=int, default=32)
    options_parser.add_argument("--classes", type=int, default=100)
    options_parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2])
    options_parser.add_argument(
        "--precisions", nargs="+", choices=["fp32", "bf16"], default=["fp32", "bf16"]
    )
    options_parser.add_argument("--repeats", type=int, default=2)
    options = options_parser.parse_args()
    torch.set_num_threads(options.threads)
    if options.smoke:
        options.model, options.images, options.classes = "smoke", 8, 5
    with tempfile.TemporaryDirectory() as folder:
        rows, text = measure(Path(folder), options)
    print(f"{report(rows)}\n\n{text}")
    save(options.json, "predict", rows, model=options.model, batch=BATCH)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
