"""One name, one backbone: `bundled:tiny`, `open_clip:ViT-B-16/openai`, `hf:<dir>` and more."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

import torch

from promptot.backbones.backbone import PRECISIONS, Backbone
from promptot.backbones.towers.products import has_instructions
from promptot.backbones.trusted import note
from promptot.devices import pick_device
from promptot.errors import PromptotError, PromptotWarning, nearest


@dataclass(frozen=True)
class Source:
    """A kind of backbone name: how it is written, and what loads it."""

    pattern: str
    summary: str
    load: Callable[[str], Backbone]


def _loader(module: str, function: str) -> Callable[[str], Backbone]:
    """A function of a loader's module, imported when it is called: it brings its library."""

    def load(rest: str) -> Backbone:
        found = import_module(f"promptot.backbones.loaders.{module}")
        backbone: Backbone = getattr(found, function)(rest)
        return backbone

    return load


SOURCES: dict[str, Source] = {
    "bundled": Source(
        "bundled:<name>",
        "the small CLIP inside the package",
        _loader("bundled_clip", "load_bundled"),
    ),
    "open_clip": Source(
        "open_clip:<arch>/<tag> or open_clip:hf-hub:<owner>/<name> or open_clip:local-dir:<dir>",
        "any model of open_clip",
        _loader("open_clip_models", "load_open_clip"),
    ),
    "hf": Source(
        "hf:<repo or dir>",
        "a CLIP, SigLIP, SigLIP 2 (fixed grid) or MetaCLIP 2 of transformers",
        _loader("transformers_models", "load_transformers"),
    ),
    "openai": Source(
        "openai:<file> or openai:<file>?activation=...&heads=...&preprocess=...",
        "a state dict in the OpenAI layout (.safetensors, .pt)",
        _loader("openai_layout", "load_openai_file"),
    ),
}


def load_backbone(
    name: str = "bundled:tiny", device: str | torch.device = "auto", precision: str = "fp32"
) -> Backbone:
    """Load a frozen CLIP by name.

    Args:
        name: `bundled:<name>`, `open_clip:<arch>/<tag>`, `hf:<repo or dir>` or `openai:<file>`;
            `list_backbones` has those that are known.
        device: where to put it: "cpu", "cuda", "cuda:1" or "mps"; "auto" is the best there is.
        precision: of the matrices in both towers, "fp32", "bf16" or "fp16". In 16 bits they take
            half the memory, and matrix products and attention are computed so; the residual
            stream, norms, prompts, logits and losses stay in fp32. bf16 has fp32's range; fp16
            has three bits more, and is what published figures of CLIP were computed with.

    Raises:
        PromptotError: unknown source, weights that can't be had, a kind that is not supported, or
            a device that this machine lacks.

    Warns:
        PromptotWarning: the processor has no instructions for that precision.

    Example:
        >>> backbone = load_backbone("bundled:tiny")
        >>> text = backbone.tokenize(["cat", "hot dog"])
        >>> backbone.encode_text(text).shape == (2, backbone.embed_dim)
        True
    """
    source, separator, rest = name.partition(":")
    if not separator or source not in SOURCES or not rest:
        patterns = "; ".join(f"'{known.pattern}'" for known in SOURCES.values())
        hint = nearest(source, SOURCES).split(" Valid:")[0].split("Valid:")[0]
        raise PromptotError(
            f"Unknown backbone '{name}'.", fix=f"{hint} Write one of: {patterns}.".strip()
        )
    if precision not in PRECISIONS:
        raise PromptotError(f"Unknown precision '{precision}'.", fix=nearest(precision, PRECISIONS))
    where = pick_device(device) if isinstance(device, str) else device
    backbone = SOURCES[source].load(rest)
    note(name)
    if precision != "fp32":
        backbone.store_matrices(precision)
        if where.type == "cpu" and not has_instructions(PRECISIONS[precision]):
            warnings.warn(
                f"This processor has no instructions for {precision}: fp32 is faster on it, with "
                "twice the memory for the matrices.",
                PromptotWarning,
                stacklevel=2,
            )
    return backbone.to(where)


def load_recorded(
    name: str, device: str | torch.device = "auto", precision: str = "fp32"
) -> Backbone:
    """Load a frozen CLIP by the name on an adapter's card.

    Cards of earlier versions name files in the OpenAI layout without what their tensors don't tell;
    those versions took every such file for one of OpenAI's, and the adapter learned in what came of
    it. So it is loaded as they did.

    Args:
        name: as the card has it.
        device, precision: see `load_backbone`.

    Raises:
        PromptotError: as in `load_backbone`.
    """
    from promptot.backbones.loaders.openai_settings import Unstated

    try:
        return load_backbone(name, device, precision)
    except Unstated as error:
        if error.as_openai is None:
            raise
        backbone = load_backbone(f"{name}{error.as_openai}", device, precision)
        note(name)  # else the card's name would be asked about each time
        return backbone
