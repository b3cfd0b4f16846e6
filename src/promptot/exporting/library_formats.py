"""The prompted CLIP in open_clip and in transformers, with a classifier of fixed names.

Neither library's modules have a place for tokens that are replaced before every block, so weights
alone can't carry deep prompts: a folder holds the library's own CLIP, the tokens, and a small
module that puts them in by hooks (see `promptot.exporting.standalone`).
"""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor

from promptot.backbones.backbone import Backbone
from promptot.backbones.layouts import to_openai, to_transformers
from promptot.backbones.tokenizer import ClipTokenizer
from promptot.errors import PromptotError
from promptot.exporting.configurations import (
    clip_config,
    clip_image_processor,
    open_clip_config,
    weights_for,
)
from promptot.exporting.formats import Content, Read, fill
from promptot.files.writing import write_json

STANDALONE = Path(__file__).parent / "standalone"
OPEN_CLIP_MODULE = "prompted_open_clip.py"
CLIP_VOCABULARY = 49408


def write_open_clip(folder: Path, content: Content) -> None:
    """Write an open_clip folder of the frozen CLIP, the prompts, and the module that joins them."""
    write_open_clip_model(folder, content.model.backbone)
    learned = {"matrix": content.fixed.matrix, "bias": content.fixed.bias}
    learned |= {f"vision.{i}": tokens for i, tokens in enumerate(content.vision)}
    learned |= {f"text.{i}": tokens for i, tokens in enumerate(content.text)}
    save_file(learned, folder / "prompts.safetensors")
    shutil.copyfile(STANDALONE / OPEN_CLIP_MODULE, folder / OPEN_CLIP_MODULE)


def write_open_clip_model(folder: Path, backbone: Backbone) -> None:
    """The frozen CLIP as open_clip has it."""
    config = open_clip_config(backbone)
    check_tokenizer(backbone)
    write_json(folder / "open_clip_config.json", config)
    save_file(weights_for(to_openai, backbone), folder / "open_clip_model.safetensors")


def read_open_clip(folder: Path) -> Read:
    """Load the folder with the module inside it, and open_clip."""
    loaded = _import(folder / OPEN_CLIP_MODULE).load(folder)

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        features = loaded.model.encode_image(images, normalize=True)
        found: Tensor = features @ loaded.classifier + loaded.bias
        return found

    @torch.no_grad()
    def text(names: tuple[str, ...]) -> Tensor:
        return mean_over_templates(
            [
                loaded.model.encode_text(loaded.tokenizer(texts), normalize=True)
                for texts in fill(loaded.template, names)
            ]
        )

    return Read(logits, None if loaded.template is None else text)


def write_transformers(folder: Path, content: Content) -> None:
    """Write a transformers folder: model, its code, image processor and tokenizer."""
    need_transformers()
    from promptot.exporting.standalone import modeling_prompted_clip as modeling

    model, fixed = content.model, content.fixed
    names = model.class_names
    config = modeling.PromptedCLIPConfig(
        clip=clip_config(model.backbone),
        vision_tokens=len(content.vision[0]) if content.vision else 0,
        vision_blocks=len(content.vision),
        text_tokens=len(content.text[0]) if content.text else 0,
        text_blocks=len(content.text),
        template=content.template,
        **({"problem_type": "multi_label_classification"} if model.fit == "sigmoid" else {}),
        id2label=dict(enumerate(names)),
        label2id={name: index for index, name in enumerate(names)},
    )
    prompted = modeling.PromptedCLIPForImageClassification(config)
    prompted.clip.load_state_dict(weights_for(to_transformers, model.backbone))
    with torch.no_grad():
        for own, learned in (
            *zip(prompted.vision_prompts, content.vision, strict=True),
            *zip(prompted.text_prompts, content.text, strict=True),
            (prompted.classifier.weight, fixed.matrix),
            (prompted.classifier.bias, fixed.bias),
        ):
            own.copy_(learned)
    modeling.PromptedCLIPConfig.register_for_auto_class()
    modeling.PromptedCLIPForImageClassification.register_for_auto_class(
        "AutoModelForImageClassification"
    )
    prompted.eval().save_pretrained(folder)

    write_processor(folder, model.backbone)


def read_transformers(folder: Path) -> Read:
    """Load the folder with transformers and the class whose code is in it."""
    transformers = need_transformers()
    from promptot.exporting.standalone import modeling_prompted_clip as modeling

    model = modeling.PromptedCLIPForImageClassification.from_pretrained(folder).eval()
    template = model.config.template

    @torch.no_grad()
    def logits(images: Tensor) -> Tensor:
        found: Tensor = model(pixel_values=images).logits
        return found

    if template is None or not (folder / "tokenizer_config.json").is_file():
        return Read(logits)
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)

    @torch.no_grad()
    def text(names: tuple[str, ...]) -> Tensor:
        return mean_over_templates(
            [
                model.get_text_features(**tokenizer(texts, padding=True, return_tensors="pt"))
                for texts in fill(template, names)
            ]
        )

    return Read(logits, text)


def write_processor(folder: Path, backbone: Backbone) -> None:
    """How the backbone reads images and texts, in transformers' files."""
    images = clip_image_processor(backbone.preprocess)
    need_transformers().CLIPImageProcessor(**images).save_pretrained(folder)
    theirs = getattr(backbone.tokenizer, "_tokenizer", None)
    if theirs is not None:
        theirs.save_pretrained(folder)
        return
    from open_clip.tokenizer import SimpleTokenizer

    bpe = SimpleTokenizer()
    special = {bpe.sot_token_id: "<|startoftext|>", bpe.eot_token_id: "<|endoftext|>"}
    vocabulary = {special.get(index, token): index for token, index in bpe.encoder.items()}
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    write_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *map(" ".join, merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8", newline="")
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "CLIPTokenizer",
            "model_max_length": backbone.text_tower.context_length,
            "bos_token": "<|startoftext|>",
            **dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>"),
        },
    )


def check_tokenizer(backbone: Backbone) -> None:
    """Refuse texts that open_clip's CLIP would read as other tokens.

    Raises:
        PromptotError: they are.
    """
    if not isinstance(backbone.tokenizer, ClipTokenizer) and not _same_tokens(backbone):
        raise PromptotError(
            "This backbone's tokenizer is not the one of open_clip.",
            fix="Export it with --format transformers, onnx or torchscript.",
        )


def _same_tokens(backbone: Backbone) -> bool:
    """Whether another tokenizer gives the ids of open_clip's, as far as a sentence tells."""
    if backbone.text_tower.token_embedding.num_embeddings != CLIP_VOCABULARY:
        return False
    sentence = "a photo of a St. Bernard (dog), 737-800."
    return backbone.tokenizer.encode(sentence) == ClipTokenizer().encode(sentence)


def mean_over_templates(features: list[Tensor]) -> Tensor:
    """Normalised mean over templates of normalised features."""
    return F.normalize(torch.stack(features).mean(dim=0), dim=-1)


def _import(path: Path) -> Any:
    """A module from a file that this very export has written."""
    spec = importlib.util.spec_from_loader(path.stem, loader=None, origin=str(path))
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    module.__file__ = str(path)
    exec(compile(path.read_bytes(), path, "exec"), module.__dict__)  # leaves no __pycache__
    return module


def need_transformers() -> Any:
    try:
        import transformers
    except ImportError as error:
        raise PromptotError(
            "Exporting to transformers needs transformers.", fix="pip install 'promptot[hf]'"
        ) from error
    return transformers
