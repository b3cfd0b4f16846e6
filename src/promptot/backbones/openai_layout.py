"""The OpenAI state-dict layout: the lingua franca of CLIP weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    TextShape,
    TransformerShape,
    build_towers,
)
from promptot.backbones.backbone import Backbone
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import ClipTokenizer
from promptot.errors import PromptotError

HEAD_WIDTH = 64  # in every model of this layout; the file does not say it


def load_openai_file(path: str) -> Backbone:
    """Read a file in the OpenAI layout: safetensors, or a state dict saved by torch.

    Raises:
        PromptotError: no such file, not a state dict, or not a Vision-Transformer CLIP.
    """
    weights = read_state_dict(Path(path))
    architecture = infer_architecture(weights)
    image_tower, text_tower = build_towers(architecture, rename(weights))
    patch = architecture.image.patch or 1
    resolution = patch * math.isqrt(architecture.image.patches)
    return Backbone(
        f"openai:{path}",
        image_tower,
        text_tower,
        weights["logit_scale"].float().exp(),
        ClipTokenizer(),
        Preprocess(resolution),
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file or of a `torch.save`d state dict; nothing is unpickled."""
    if not path.is_file():
        raise PromptotError(f"There is no file '{path}'.", fix="Check the path of the weights.")
    if path.suffix == ".safetensors":
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            return load_file(path)
        except (SafetensorError, OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
            raise PromptotError(
                f"'{path}' is not a readable safetensors file ({error!s:.200}).",
                fix="Download or save it again.",
            ) from error
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises many kinds, all of them about this file
        raise PromptotError(
            f"'{path}' is not a state dict that can be read without running code.",
            fix="If it is one of OpenAI's TorchScript archives, load it as "
            "'open_clip:<arch>/openai', or save its state dict as safetensors first.",
        ) from error
    if isinstance(state, Mapping) and isinstance(state.get("state_dict"), Mapping):
        state = state["state_dict"]
    if not isinstance(state, Mapping) or not all(isinstance(v, Tensor) for v in state.values()):
        raise PromptotError(
            f"'{path}' holds no state dict.", fix="Save `model.state_dict()` and pass that file."
        )
    return {key.removeprefix("module."): value for key, value in state.items()}


def infer_architecture(weights: Mapping[str, Tensor]) -> Architecture:
    """Read every dimension from the shapes of the weights; the activation is QuickGELU."""
    if "visual.layer1.0.conv1.weight" in weights:
        raise PromptotError(
            "These are the weights of a ResNet CLIP, which is not supported yet.",
            fix="Use one with a Vision Transformer, such as ViT-B/16.",
        )
    needed = ("visual.conv1.weight", "visual.proj", "token_embedding.weight", "ln_final.weight")
    absent = [key for key in needed if key not in weights]
    if absent:
        raise PromptotError(
            f"These are not CLIP weights in the OpenAI layout: '{absent[0]}' is missing.",
            fix="For a transformers folder use 'hf:<dir>', for open_clip 'open_clip:<arch>/<tag>'.",
        )
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    text_width = len(weights["ln_final.weight"])
    return Architecture(
        embed_dim=weights["visual.proj"].shape[1],
        image=ImageShape(
            _infer_transformer(weights, "visual.transformer", width),
            patches=len(weights["visual.positional_embedding"]) - 1,
            patch=patch,
        ),
        text=TextShape(
            _infer_transformer(weights, "transformer", text_width),
            vocabulary=len(weights["token_embedding.weight"]),
            context_length=len(weights["positional_embedding"]),
        ),
    )


def _infer_transformer(weights: Mapping[str, Tensor], name: str, width: int) -> TransformerShape:
    prefix = f"{name}.resblocks."
    layers = 1 + max(
        int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix)
    )
    return TransformerShape(
        width=width,
        layers=layers,
        heads=width // HEAD_WIDTH,
        mlp_width=len(weights[f"{prefix}0.mlp.c_fc.weight"]),
        activation="quick_gelu",
    )


NOT_WEIGHTS = ("logit_scale", "logit_bias", "input_resolution", "context_length", "vocab_size")


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of the OpenAI layout → keys of our towers."""
    renamed: dict[str, Tensor] = {}
    for key, value in weights.items():
        if key in NOT_WEIGHTS or key.endswith("attn_mask"):
            continue
        if key.startswith("visual.conv1."):
            renamed[key.replace("visual.", "image_tower.stem.")] = value
        elif key.startswith("visual."):
            renamed[key.replace("visual.", "image_tower.", 1)] = value
        else:
            renamed[f"text_tower.{key.removeprefix('text.')}"] = value
    return renamed
