"""From a checkpoint to the folder that ships: weights, configuration, tokenizer."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file

from asset_build.augment import RESOLUTION
from asset_build.pretrain import architecture, load_averaged
from asset_build.trunk import MEAN, STD
from promptot.files.writing import atomic_write, write_json


def export_model(checkpoint: Path, tokenizer: Path, folder: Path) -> None:
    """Write `model.safetensors`, `config.json` and `tokenizer.json`.

    Matrices and kernels are stored in fp16; vectors (norms, biases, batch statistics) stay in
    fp32, since fp16 could not hold every batch variance.
    """
    model, settings, _ = load_averaged(checkpoint)
    weights = {
        key: value.detach().to(torch.float16 if value.dim() > 1 else torch.float32).contiguous()
        for key, value in model.state_dict().items()
        if value.is_floating_point() and key != "log_scale"
    }
    counters = {k: v for k, v in model.state_dict().items() if not v.is_floating_point()}
    weights["logit_scale"] = model.log_scale.detach().exp()
    with atomic_write(folder / "model.safetensors") as path:
        save_file(weights | counters, path)
    with atomic_write(folder / "tokenizer.json") as path:
        shutil.copyfile(tokenizer, path)
    preprocess = {
        "resolution": RESOLUTION,
        "mean": list(MEAN),
        "std": list(STD),
        "interpolation": "bicubic",
    }
    config = {"architecture": asdict(architecture(settings)), "preprocess": preprocess}
    write_json(folder / "config.json", config)


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file of an asset folder but its card, by name."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != "CARD.md"
    }
