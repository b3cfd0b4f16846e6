"""A run whose changes merge into the weights (LoRA), as a plain CLIP: no code of ours reads it."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.backbones.layouts import to_openai, to_transformers
from promptot.backbones.low_rank import Deltas
from promptot.backbones.towers.transformer import Block, Transformer
from promptot.errors import PromptotError
from promptot.exporting.configurations import (
    DEFAULT_EPS,
    clip_config,
    open_clip_config,
    weights_for,
)
from promptot.exporting.formats import ABOUT, Content, Read, fill
from promptot.exporting.library_formats import (
    check_tokenizer,
    mean_over_templates,
    need_transformers,
    write_open_clip_model,
    write_processor,
)
from promptot.files.reading import read_json
from promptot.files.weights_file import read_state_dict
from promptot.files.writing import write_json

OPENAI_FILE = "clip.pt"


def merges(model: Student) -> bool:
    """Whether all that was learned can be added to the weights."""
    injection = model.injection()
    changed = any(injection.text_deltas) or any(injection.image_deltas)
    return changed and not injection.text_tokens and not injection.image_tokens


@torch.no_grad()
def merged(model: Student) -> Student:
    """The same over a copy of the backbone whose weights have the changes in them."""
    backbone = copy.deepcopy(model.backbone)
    injection = model.injection()
    changes = (injection.text_deltas, injection.image_deltas)
    for tower, deltas in zip((backbone.text_tower, backbone.image_tower), changes, strict=True):
        transformer = getattr(tower, "transformer", None)
        if any(deltas) and isinstance(transformer, Transformer):
            for block, own in zip(transformer.blocks, deltas, strict=True):
                _add(block, own)
    backbone.forget()
    return Student(
        backbone,
        None,
        model.class_names,
        model.template,
        synonyms=model.synonyms,
        template_mean=model.template_mean,
        fit=model.fit,
    )


def _add(block: Block, deltas: Deltas) -> None:
    """The changes of a block, to its matrices."""
    q, k, v = block.attn.in_proj_weight.chunk(3)
    matrices = {"q": q, "k": k, "v": v, "o": block.attn.out_proj.weight}
    matrices |= {"fc": block.mlp.c_fc.weight, "proj": block.mlp.c_proj.weight}
    for name, delta in deltas.items():
        matrices[name].add_(delta.matrix().to(matrices[name]))


def write_open_clip(folder: Path, content: Content) -> None:
    """Write an open_clip folder, as open_clip's `local-dir:` takes it."""
    write_open_clip_model(folder, content.model.backbone)


def read_open_clip(folder: Path) -> Read:
    """Load the folder with open_clip alone."""
    import open_clip

    model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    return _reader(folder, model.eval(), open_clip.get_tokenizer(f"local-dir:{folder}"))


def write_openai(folder: Path, content: Content) -> None:
    """Write the state dict that OpenAI's `clip.model.build_model` takes, in fp32.

    Raises:
        PromptotError: OpenAI's code builds another model of these weights.
    """
    backbone = content.model.backbone
    open_clip_config(backbone)  # a plain CLIP
    check_tokenizer(backbone)
    shape = backbone.architecture()
    sizes = (shape.image.transformer, shape.text.transformer)
    unfit = {
        "another activation than QuickGELU": any(s.activation != "quick_gelu" for s in sizes),
        "heads that are not 64 wide": any(s.width != 64 * s.heads for s in sizes),
        "an MLP that is not four times as wide": any(s.mlp_width != 4 * s.width for s in sizes),
        "another ε in its norms": any(s.eps != DEFAULT_EPS for s in sizes),
        "a bias of its logits": backbone.logit_bias is not None,
        "an image feature that is pooled in another way": shape.image.pool != "class",
        "no norm before the first block": not shape.image.pre_norm,
        "a bias in its text projection": getattr(shape.text, "projection_bias", False),
    }
    for what, so in unfit.items():
        if so:
            raise PromptotError(
                f"This backbone has {what}, which OpenAI's CLIP has no place for.",
                fix="Export it with --format open_clip.",
            )
    torch.save(weights_for(to_openai, backbone), folder / OPENAI_FILE)


def read_openai(folder: Path) -> Read:
    """Load the file as open_clip loads OpenAI's own, and its values as they are.

    OpenAI's code and open_clip's round them to fp16 while they load.
    """
    import open_clip

    state = read_state_dict(folder / OPENAI_FILE)
    model = open_clip.model.build_model_from_openai_state_dict(dict(state)).float()
    model.load_state_dict(state)
    return _reader(folder, model.eval(), open_clip.tokenize)


def write_transformers(folder: Path, content: Content) -> None:
    """Write a CLIPModel with its processor, which sentence-transformers loads too."""
    transformers = need_transformers()
    backbone = content.model.backbone
    model = transformers.CLIPModel(transformers.CLIPConfig(**clip_config(backbone)))
    model.load_state_dict(weights_for(to_transformers, backbone))
    model.eval().save_pretrained(folder)
    write_processor(folder, backbone)
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.CLIPModel"}
    write_json(folder / "modules.json", [module])


def read_transformers(folder: Path) -> Read:
    """Load the folder with transformers alone."""
    transformers = need_transformers()
    model = transformers.CLIPModel.from_pretrained(folder).eval()
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)

    def encode_image(images: Tensor) -> Tensor:
        return features_of(model.get_image_features(pixel_values=images))

    def encode_text(texts: list[str]) -> Tensor:
        tokens = tokenizer(texts, padding=True, return_tensors="pt")
        return features_of(model.get_text_features(**tokens))

    return _read(folder, encode_image, encode_text, model.logit_scale.exp(), None)


def _reader(folder: Path, model: Any, tokenize: Callable[[list[str]], Tensor]) -> Read:
    def encode_text(texts: list[str]) -> Tensor:
        found: Tensor = model.encode_text(tokenize(texts))
        return found

    bias = getattr(model, "logit_bias", None)
    return _read(folder, model.encode_image, encode_text, model.logit_scale.exp(), bias)


def _read(
    folder: Path,
    encode_image: Callable[[Tensor], Tensor],
    encode_text: Callable[[list[str]], Tensor],
    scale: Tensor,
    bias: Tensor | None,
) -> Read:
    """How a plain CLIP classifies the names that the folder's description lists."""
    about = read_json(folder / ABOUT)

    @functools.cache
    @torch.no_grad()
    def text(names: tuple[str, ...]) -> Tensor:
        found = [encode_text(texts) for texts in fill(about["template"], names)]
        return mean_over_templates([F.normalize(features, dim=-1) for features in found])

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        features = F.normalize(encode_image(images), dim=-1)
        found = scale * features @ text(tuple(about["class_names"])).T
        return found if bias is None else found + bias

    return Read(logits, text)


def features_of(found: Any) -> Tensor:
    """What transformers gives for features: a tensor, since version 5 within an output."""
    features: Tensor = found if isinstance(found, Tensor) else found.pooler_output
    return features
