"""Where open_clip's models come from: configuration, preprocessing, and the file of the weights.

The configuration is open_clip's own, and what it says of a *tag* goes before what it says of the
architecture: how weights were trained belongs to the weights. open_clip's factory builds the
architecture's activation and only warns where the tag's is another. Its factory is not used for a
second reason: it reads files itself, while here nothing but tensors is ever read from one.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError, nearest
from promptot.files.reading import Unreadable, read_json

LOCAL = "local-dir:"
HUB = "hf-hub:"
CONFIG = "open_clip_config.json"
WEIGHTS = (
    "open_clip_model.safetensors",
    "open_clip_pytorch_model.safetensors",
    "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth",
    "model.safetensors",
    "pytorch_model.bin",
    "pytorch_model.pth",
    "model.pth",
)
"""File names in the order in which open_clip looks for them in a folder."""


@dataclass(frozen=True)
class OpenClipSource:
    """A model as open_clip describes it.

    Attributes:
        config: arguments of open_clip's CLIP, among them the activation of these weights.
        preprocess: what is known of "mean", "std", "interpolation", "resize_mode", "fill_color".
        weights: gives the file; it is downloaded where it isn't there yet.
        folder: a local folder's path, or None.
    """

    config: dict[str, Any]
    preprocess: dict[str, Any]
    weights: Callable[[], Path]
    folder: Path | None = None


def find_open_clip(spec: str) -> OpenClipSource:
    """What `<arch>/<tag>`, `hf-hub:<owner>/<name>` or `local-dir:<dir>` stands for.

    Only a configuration is downloaded by this, and that for `hf-hub:` alone.

    Raises:
        PromptotError: unknown architecture or tag, or a configuration that can't be read.
    """
    if spec.startswith(LOCAL):
        folder = Path(spec.removeprefix(LOCAL))
        config, preprocess = _read_config(folder / CONFIG, spec)
        return OpenClipSource(config, preprocess, lambda: _weights_in(folder, spec), folder)
    if spec.startswith(HUB):
        from open_clip.pretrained import download_pretrained_from_hf

        repository = spec.removeprefix(HUB)
        _check_repository(repository, spec)
        config, preprocess = _read_config(
            Path(download_pretrained_from_hf(repository, filename=CONFIG)), spec
        )
        return OpenClipSource(
            config, preprocess, lambda: Path(download_pretrained_from_hf(repository))
        )
    return _find_tag(spec)


def _find_tag(spec: str) -> OpenClipSource:
    import open_clip

    model_name, _, tag = spec.rpartition("/")
    if model_name not in open_clip.list_models():
        close = difflib.get_close_matches(model_name, open_clip.list_models(), n=3)
        hint = f" Close: {', '.join(close)}." if close else ""
        raise PromptotError(
            f"open_clip knows no architecture '{model_name}'.",
            fix=f"Write 'open_clip:<arch>/<tag>', such as 'open_clip:ViT-B-16/openai', or "
            f"'open_clip:hf-hub:<owner>/<name>'.{hint}",
        )
    config = deepcopy(open_clip.get_model_config(model_name))
    described = open_clip.get_pretrained_cfg(model_name, tag)
    check_config(config)
    tags = open_clip.list_pretrained_tags_by_model(model_name)
    if not described:
        raise PromptotError(
            f"open_clip has no weights '{tag}' for {model_name}.", fix=nearest(tag, tags)
        )
    # One of them (roberta-ViT-B-32) has its activation in the architecture alone.
    config["quick_gelu"] = bool(described.get("quick_gelu", config.get("quick_gelu", False)))
    return OpenClipSource(
        config, dict(described), lambda: Path(open_clip.download_pretrained(described))
    )


def check_config(config: Mapping[str, Any]) -> None:
    """Refuse a model that can't be computed here by its configuration, before anything is built.

    Text towers and tokenizers of other libraries are never built by their names: a configuration
    may name any repository for them, and have its code run.

    Raises:
        PromptotError: a kind of model that is not supported.
    """
    vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
    trunk = vision.get("timm_model_name")
    if trunk is not None and not re.fullmatch(r"[\w.-]+", str(trunk)):  # "hf_hub:…", a path
        raise unsupported(f"the image tower {trunk}")
    if text.get("hf_model_name") and text.get("hf_pooler_type") is not None:
        where_pooled(text["hf_pooler_type"])


def where_pooled(pooler: str) -> str:
    """Where open_clip reads a text encoder of transformers, as `PaddedTextShape.pool` says it.

    Raises:
        PromptotError: an unknown pooling.
    """
    places = {
        "mean_pooler": "mean",
        "cls_pooler": "first",
        "cls_last_hidden_state_pooler": "first",
    }
    if pooler not in places:
        raise unsupported(f"a text tower with the pooling '{pooler}'")
    return places[pooler]


def unsupported(what: str) -> PromptotError:
    """The error for a model that can't be prompted yet."""
    return PromptotError(
        f"This open_clip model has {what}, which is not supported yet.",
        fix="`promptot backbones` lists those that are, such as 'open_clip:ViT-B-16/openai'.",
    )


def _check_repository(repository: str, spec: str) -> None:
    if repository.count("/") != 1 or not all(repository.split("/")):
        raise PromptotError(
            f"'{spec}' names no repository of the Hub.",
            fix="Write 'open_clip:hf-hub:<owner>/<name>', such as "
            "'open_clip:hf-hub:laion/CLIP-ViT-B-32-laion2B-s34B-b79K'.",
        )


def _read_config(path: Path, spec: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Arguments of the model, and the preprocessing, of an open_clip_config.json."""
    try:
        found = read_json(path)
    except Unreadable as error:
        raise _no_config(spec, str(error)) from error
    found = found if isinstance(found, dict) else {}
    config, preprocess = found.get("model_cfg"), found.get("preprocess_cfg") or {}
    if (
        not isinstance(config, dict)
        or not isinstance(preprocess, dict)
        or not all(isinstance(config.get(part), dict) for part in ("vision_cfg", "text_cfg"))
    ):
        raise _no_config(spec, f"{path.name} describes no model")
    check_config(config)
    return config, preprocess


def _no_config(spec: str, why: str) -> PromptotError:
    return PromptotError(
        f"open_clip could not load '{spec}': {why}.",
        fix=f"Check the name, the network, or that the folder holds {CONFIG} and the weights.",
    )


def _weights_in(folder: Path, spec: str) -> Path:
    """The file that open_clip would take; one that is not named as usual only if it is alone."""
    for name in WEIGHTS:
        if (folder / name).is_file():
            return folder / name
    found = sorted(p for kind in ("safetensors", "bin", "pth") for p in folder.glob(f"*.{kind}"))
    if len(found) == 1:
        return found[0]
    if not found:
        raise _no_config(spec, "there are no weights in the folder")
    raise PromptotError(
        f"'{folder}' holds several files of weights: {', '.join(p.name for p in found)}.",
        fix=f"Rename the one to use to '{WEIGHTS[0]}' (or '{WEIGHTS[2]}' if it is torch's).",
    )
