"""The small CLIP that ships inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter
from safetensors.torch import load_file

from promptot.backbones.architecture import Architecture
from promptot.backbones.backbone import Backbone
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import FileTokenizer
from promptot.backbones.towers.stems import TrunkStem
from promptot.errors import PromptotError, nearest
from promptot.files.reading import read_json

ASSETS = Path(str(files("promptot") / "assets"))


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
    """Load a model folder: config.json, model.safetensors and tokenizer.json."""
    config: dict[str, Any] = read_json(folder / "config.json")
    architecture = TypeAdapter(Architecture).validate_python(config["architecture"])
    preprocess = TypeAdapter(Preprocess).validate_python(config["preprocess"])
    weights = load_file(folder / "model.safetensors")
    tokenizer = FileTokenizer(folder / "tokenizer.json")
    backbone = Backbone.from_weights(name, weights, architecture, tokenizer, preprocess)
    stem = backbone.image_tower.stem
    if isinstance(stem, TrunkStem):
        backbone.weight_hash()  # of the weights as they are stored
        stem.fuse_norms()
    return backbone
