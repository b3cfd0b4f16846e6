"""The OpenAI state-dict layout: the lingua franca of CLIP weights."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from promptot.backbones.architecture import Architecture, Untold, infer_architecture
from promptot.backbones.backbone import Backbone
from promptot.backbones.layouts import SIZES, from_openai
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
    heads, activation = require(said, path, image_width, text_width)
    ours = from_openai(weights)
    architecture = infer_architecture(ours, [Untold(count, activation) for count in heads])
    preprocess = said.preprocessing(_resolution(weights, architecture))
    assert preprocess is not None
    return Backbone.from_weights(f"openai:{name}", ours, architecture, ClipTokenizer(), preprocess)


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
        "visual.ln_pre.weight",
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
