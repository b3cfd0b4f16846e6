"""The OpenAI state-dict layout: the lingua franca of CLIP weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from promptot.backbones.architecture import (
    Architecture,
    ImageShape,
    TextShape,
    TransformerShape,
    build_towers,
)
from promptot.backbones.backbone import Backbone
from promptot.backbones.library_warnings import refuse_warnings
from promptot.backbones.loaders.openai_settings import beside, openai_own, require, split_name
from promptot.backbones.tokenizer import ClipTokenizer
from promptot.errors import PromptotError
from promptot.files.weights_file import read_state_dict

PICKLED = (
    "If it is one of OpenAI's TorchScript archives, load it as 'open_clip:<arch>/openai', or save "
    "its state dict as safetensors first."
)


def load_openai_file(name: str) -> Backbone:
    """Read a file in the OpenAI layout: safetensors, or a state dict saved by torch.

    The image feature is read at the class token, the text feature at the end token, and norms have
    an epsilon of 1e-5: that is the layout. What it leaves open is said in the name or beside the
    file, see `promptot.backbones.loaders.openai_settings`.

    Args:
        name: "<file>", or "<file>?<what the tensors don't tell>".

    Raises:
        PromptotError: no such file, not a state dict, not a Vision-Transformer CLIP, or something
            that the tensors can't tell was not said.
    """
    path, said = split_name(name)
    with refuse_warnings("torch", f"openai:{name}"):
        weights = read_state_dict(path, PICKLED)
    image_width, text_width = _check_layout(weights)
    said = said.over(beside(path))
    if all(key in weights for key in SIZES):
        said = said.over(openai_own(image_width, text_width))
    require(said, path, image_width, text_width)
    assert said.heads is not None
    assert said.activation is not None
    architecture = infer_architecture(weights, said.heads, said.activation)
    resolution = _resolution(weights, architecture)
    image_tower, text_tower = build_towers(architecture, rename(weights))
    preprocess = said.preprocessing(resolution)
    assert preprocess is not None
    return Backbone(
        f"openai:{name}",
        image_tower,
        text_tower,
        weights["logit_scale"].float().exp().reshape(()),  # some save it as [1]
        ClipTokenizer(),
        preprocess,
    )


def _check_layout(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """The widths of the image tower and of the text tower."""
    if "visual.layer1.0.conv1.weight" in weights:
        raise PromptotError(
            "These are the weights of a ResNet CLIP, which is not supported yet.",
            fix="Use one with a Vision Transformer, such as ViT-B/16.",
        )
    needed = (
        "visual.conv1.weight",
        "visual.proj",
        "visual.positional_embedding",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
        "token_embedding.weight",
        "positional_embedding",
        "transformer.resblocks.0.mlp.c_fc.weight",
        "ln_final.weight",
        "logit_scale",
    )
    absent = [key for key in needed if key not in weights]
    if absent:
        raise PromptotError(
            f"These are not CLIP weights in the OpenAI layout: '{absent[0]}' is missing.",
            fix="For a transformers folder use 'hf:<dir>', for open_clip 'open_clip:<arch>/<tag>'.",
        )
    return len(weights["visual.conv1.weight"]), len(weights["ln_final.weight"])


def infer_architecture(
    weights: Mapping[str, Tensor], heads: tuple[int, int], activation: str
) -> Architecture:
    """Every other dimension, from the shapes of the weights.

    Args:
        heads: of the image tower and of the text tower.
        activation: "quick_gelu" or "gelu".
    """
    width, _, patch, _ = weights["visual.conv1.weight"].shape
    text_width = len(weights["ln_final.weight"])
    return Architecture(
        embed_dim=weights["visual.proj"].shape[1],
        image=ImageShape(
            _infer_transformer(weights, "visual.transformer", width, heads[0], activation),
            patches=len(weights["visual.positional_embedding"]) - 1,
            patch=patch,
        ),
        text=TextShape(
            _infer_transformer(weights, "transformer", text_width, heads[1], activation),
            vocabulary=len(weights["token_embedding.weight"]),
            context_length=len(weights["positional_embedding"]),
        ),
    )


def _infer_transformer(
    weights: Mapping[str, Tensor], name: str, width: int, heads: int, activation: str
) -> TransformerShape:
    prefix = f"{name}.resblocks."
    layers = 1 + max(
        int(key.removeprefix(prefix).split(".")[0]) for key in weights if key.startswith(prefix)
    )
    return TransformerShape(
        width=width,
        layers=layers,
        heads=heads,
        mlp_width=len(weights[f"{prefix}0.mlp.c_fc.weight"]),
        activation=activation,
    )


def _resolution(weights: Mapping[str, Tensor], architecture: Architecture) -> int:
    """Side of the input in pixels; what the file says of its sizes must be so."""
    image, text = architecture.image, architecture.text
    side = math.isqrt(image.patches)
    if side**2 != image.patches:
        raise PromptotError(
            f"The image tower has {image.patches} patches, which are no square.",
            fix="Use a model whose images are square.",
        )
    resolution = (image.patch or 1) * side
    found = (resolution, text.context_length, text.vocabulary)
    for key, value in zip(SIZES, found, strict=True):
        if key in weights and int(weights[key]) != value:
            raise PromptotError(
                f"The file says that its {key} is {int(weights[key])}, and its tensors {value}.",
                fix="Download or save it again.",
            )
    return resolution


SIZES = ("input_resolution", "context_length", "vocab_size")
"""Numbers that OpenAI's own files hold beside their weights."""
NOT_WEIGHTS = ("logit_scale", "logit_bias", *SIZES)


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
