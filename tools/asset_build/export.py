"""From a checkpoint to the folder that ships: weights, configuration, tokenizer."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import asdict
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from asset_build.augment import RESOLUTION
from asset_build.pretrain import architecture, load_averaged
from asset_build.trunk import MEAN, STD
from promptot.backbones.loaders.bundled_clip import quantize_rows
from promptot.files.writing import atomic_write, write_json


def export_model(checkpoint: Path, tokenizer: Path, folder: Path) -> None:
    """Write `model.safetensors`, `config.json` and `tokenizer.json`.

    The transformers' matrices and the token embeddings are stored in 8 bits with a scale a row, all
    other matrices and kernels in fp16; vectors (norms, biases, batch statistics) stay in fp32,
    since fp16 could not hold every batch variance.
    """
    model, settings, _ = load_averaged(checkpoint)
    weights: dict[str, Tensor] = {}
    for key, value in model.state_dict().items():
        value = value.detach()
        if not value.is_floating_point() or key == "log_scale":
            continue
        if value.dim() == 2 and (".transformer." in key or ".token_embedding." in key):
            weights |= quantize_rows(key, value)
        else:
            kind = torch.float16 if value.dim() > 1 else torch.float32
            weights[key] = value.to(kind).contiguous()
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
