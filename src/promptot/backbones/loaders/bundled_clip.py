"""The small CLIP that ships inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

import torch
from pydantic import TypeAdapter
from safetensors.torch import load_file
from torch import Tensor

from promptot.backbones.architecture import Architecture
from promptot.backbones.backbone import Backbone
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import FileTokenizer
from promptot.backbones.towers.stems import TrunkStem
from promptot.errors import PromptotError, nearest
from promptot.files.reading import read_json

ASSETS = Path(str(files("promptot") / "assets"))

EARLIER_WEIGHTS = {
    "9ed8fb783c8c5735c5106cb5330713a76112c25ddc7942582257ecc4d3f23ed7": "0.2.0",
}
"""`Backbone.weight_hash` of bundled models of before, and the last promptot that had each."""


def list_bundled() -> list[str]:
    """Names of the models that ship inside the package.

    Example:
        >>> list_bundled()
        ['tiny']
    """
    return sorted(path.parent.name for path in ASSETS.glob("*/model.safetensors"))


def load_bundled(name: str) -> Backbone:
    """Load a model that ships inside the package, such as "tiny".

    Raises:
        PromptotError: there is no such model.
    """
    if name not in list_bundled():
        raise PromptotError(f"No model '{name}' is bundled.", fix=nearest(name, list_bundled()))
    return load_folder(ASSETS / name, f"bundled:{name}")


def load_folder(folder: Path, name: str) -> Backbone:
    """Load a model folder: config.json, model.safetensors and tokenizer.json.

    A matrix may be stored in 8 bits, see `quantize_rows`.
    """
    config: dict[str, Any] = read_json(folder / "config.json")
    architecture = TypeAdapter(Architecture).validate_python(config["architecture"])
    preprocess = TypeAdapter(Preprocess).validate_python(config["preprocess"])
    weights = restore_rows(load_file(folder / "model.safetensors"))
    tokenizer = FileTokenizer(folder / "tokenizer.json")
    backbone = Backbone.from_weights(name, weights, architecture, tokenizer, preprocess)
    stem = backbone.image_tower.stem
    if isinstance(stem, TrunkStem):
        backbone.weight_hash()  # of the weights as they are stored
        stem.fuse_norms()
    return backbone


_SCALE = ".scale"


def quantize_rows(key: str, matrix: Tensor) -> dict[str, Tensor]:
    """A matrix [R, C] as it is stored in 8 bits: its integers, and a factor for each row.

    Every value is kept within 1 / 254 of the largest one of its row.
    """
    scale = matrix.float().abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / 127
    integers = (matrix.float() / scale).round().to(torch.int8)
    return {key: integers.contiguous(), key + _SCALE: scale}


def restore_rows(stored: dict[str, Tensor]) -> dict[str, Tensor]:
    """All weights, those that `quantize_rows` stored as fp32 matrices again."""
    weights = {key: value for key, value in stored.items() if not key.endswith(_SCALE)}
    for key, scale in stored.items():
        if key.endswith(_SCALE):
            name = key.removesuffix(_SCALE)
            weights[name] = weights[name].float() * scale
    return weights
