"""An open_clip CLIP with learned prompts: `loaded = load("this/folder")`.

Needs open_clip, torch and safetensors, and not promptot, which wrote this folder. The model is
open_clip's own; hooks put the learned tokens where they belong, so that its `encode_image` and
`encode_text` give the adapted features. What `encode_text` reads must be written in `template`: the
learned context takes the place of its first words.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torchvision.transforms import CenterCrop


class Loaded(NamedTuple):
    """What a folder holds.

    Attributes:
        model: open_clip's CLIP, prompted.
        preprocess: from a PIL image to what `encode_image` takes.
        tokenizer: from texts to what `encode_text` takes.
        class_names: the C names of the fixed classifier.
        classifier: `image_features @ classifier + bias` are the logits [B, C], [D, C].
        bias: [C].
        template: how to write other names for `encode_text`, such as "a photo of a {}."; of
            several, normalise, average and normalise their features. None where what was learned
            serves the C names only.
        probabilities: from logits [B, C] to the probability of each class: their softmax, or, as
            the model was trained, the sigmoid of each, which need not sum to 1.
    """

    model: Any
    preprocess: Callable[..., Tensor]
    tokenizer: Callable[..., Tensor]
    class_names: list[str]
    classifier: Tensor
    bias: Tensor
    template: str | list[str] | None
    probabilities: Callable[[Tensor], Tensor]


def load(folder: str | os.PathLike[str] = ".", device: str | torch.device = "auto") -> Loaded:
    """Load an exported folder.

    Args:
        folder: with open_clip_config.json, the weights and what promptot learned.
        device: where the model and the classifier go; "auto" is a GPU where there is one.
    """
    if device == "auto":
        gpu = "cuda" if torch.cuda.is_available() else "mps"
        device = gpu if gpu == "cuda" or torch.backends.mps.is_available() else "cpu"
    place = Path(folder)
    source = f"local-dir:{place}"
    model, preprocess = open_clip.create_model_from_pretrained(source, precision="fp32")
    learned = load_file(place / "prompts.safetensors")
    about = json.loads((place / "classifier.json").read_text(encoding="utf-8"))
    vision = [learned[f"vision.{i}"] for i in range(about["prompted_blocks"]["vision"])]
    text = [learned[f"text.{i}"] for i in range(about["prompted_blocks"]["text"])]
    insert_prompts(model, vision, text)
    if about["input"].get("crop_rounding") == "down":
        side, _ = about["input"]["centre_crop"]
        preprocess.transforms = [
            _CropDown(side) if isinstance(step, CenterCrop) else step
            for step in preprocess.transforms
        ]
    return Loaded(
        model.to(device).eval(),
        preprocess,
        open_clip.get_tokenizer(source),
        about["class_names"],
        learned["matrix"].T.to(device),
        learned["bias"].to(device),
        about["template"],
        torch.sigmoid if about["output"]["probabilities"].startswith("sigmoid") else _softmax,
    )


def _softmax(logits: Tensor) -> Tensor:
    return logits.softmax(dim=-1)


class _CropDown:
    """The centre of a PIL image; where the margins can't be equal, the first is the smaller."""

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image: Any) -> Any:
        left, top = ((length - self.side) // 2 for length in image.size)
        return image.crop((left, top, left + self.side, top + self.side))


def insert_prompts(model: Any, vision: Sequence[Tensor], text: Sequence[Tensor]) -> None:
    """Put learned tokens into a CLIP of open_clip, for good.

    Args:
        model: a CLIP with Vision-Transformer towers; it gets the tokens as parameters.
        vision: tokens [m, W] a block, from the first on; they follow the patches.
        text: tokens [n, W] a block, from the first on; they replace the n tokens after the start.
    """
    tower = getattr(model, "text", model)
    model.vision_prompts = nn.ParameterList(nn.Parameter(tokens.clone()) for tokens in vision)
    model.text_prompts = nn.ParameterList(nn.Parameter(tokens.clone()) for tokens in text)

    if len(vision):
        kept = model.visual.positional_embedding.shape[0]
        model.visual.ln_pre.register_forward_pre_hook(
            lambda module, args: (_put(args[0], model.vision_prompts[0], kept),)
        )
        _replace_in_blocks(model.visual.transformer, model.vision_prompts, kept)
        model.visual.transformer.register_forward_hook(
            lambda module, args, output: output[:, :kept]
        )
    if len(text):
        tower.token_embedding.register_forward_hook(
            lambda module, args, output: _put(output, model.text_prompts[0], 1)
        )
        _replace_in_blocks(tower.transformer, model.text_prompts, 1)


def _replace_in_blocks(transformer: Any, prompts: nn.ParameterList, start: int) -> None:
    """Give each block but the first its own tokens, from position `start` on."""
    batch_first = getattr(transformer, "batch_first", False)
    for depth in range(1, len(prompts)):

        def hook(module: nn.Module, args: tuple[Any, ...], depth: int = depth) -> tuple[Any, ...]:
            x = args[0] if batch_first else args[0].transpose(0, 1)
            x = _put(x, prompts[depth], start)
            return (x if batch_first else x.transpose(0, 1), *args[1:])

        transformer.resblocks[depth].register_forward_pre_hook(hook)


def _put(x: Tensor, tokens: Tensor, start: int) -> Tensor:
    """`tokens` [n, W] at the positions from `start` on of every row of x [B, L, W]."""
    tokens = tokens.to(x.dtype).expand(len(x), -1, -1)
    return torch.cat([x[:, :start], tokens, x[:, start + tokens.shape[1] :]], dim=1)
