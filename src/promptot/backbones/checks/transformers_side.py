"""The side of transformers: its own CLIP, SigLIP or MetaCLIP 2, by its public functions alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from promptot.backbones.checks.library_towers import told_by_blocks
from promptot.backbones.checks.side import (
    IMAGE_POOLING,
    TEXT_POOLING,
    Reading,
    Side,
    TowerSettings,
    norms_of,
    settings_of,
)


def transformers_side(source: str) -> Side:
    """The model that transformers makes of a repository or a folder."""
    import transformers

    model = transformers.AutoModel.from_pretrained(source).float().eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    siglip = model.config.model_type == "siglip"
    processor = _processor("Siglip" if siglip else "CLIP", source)
    vision, words = model.config.vision_config, model.config.text_config
    context = int(words.max_position_embeddings)
    blank = torch.zeros(1, 3, vision.image_size, vision.image_size)
    some_text = _read(tokenizer, ["x"], context if siglip else None)

    def encode_images(pixels: Tensor) -> Tensor:
        return F.normalize(model(**some_text, pixel_values=pixels).image_embeds, dim=-1)

    def encode_texts(texts: Sequence[str]) -> Tensor:
        inputs = _read(tokenizer, texts, context if siglip else None)
        return F.normalize(model(**inputs, pixel_values=blank).text_embeds, dim=-1)

    def tokens(text: str) -> list[int]:
        if not siglip:
            return list(tokenizer(text)["input_ids"])
        ids: list[int] = _read(tokenizer, [text], context)["input_ids"][0].tolist()
        return ids

    def pixels(image: Image.Image) -> Tensor:
        return torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])

    bias = getattr(model, "logit_bias", None)
    return Side(
        f"transformers {transformers.__version__}",
        settings_of(
            TowerSettings(
                *told_by_blocks(model.vision_model.encoder.layers),
                eps=norms_of(model.vision_model),
                pooling=IMAGE_POOLING["attention" if siglip else "class"],
                rotation="none",
            ),
            TowerSettings(
                *told_by_blocks(model.text_model.encoder.layers),
                eps=norms_of(model.text_model),
                pooling=TEXT_POOLING["last" if siglip else "end"],
                context=context,
                padding=tokens("x")[-1] if siglip else None,
            ),
            _reading(processor, vision.image_size),
        ),
        float(model.logit_scale.detach().exp()),
        pixels,
        tokens,
        encode_images,
        encode_texts,
        None if bias is None else float(bias.detach()),
    )


def _processor(kind: str, source: str) -> Any:
    """With Pillow, as the models' makers did; the torchvision one differs by some grey levels."""
    import transformers

    plain = getattr(transformers, f"{kind}ImageProcessor")
    return getattr(transformers, f"{kind}ImageProcessorPil", plain).from_pretrained(source)


def _read(tokenizer: Any, texts: Sequence[str], places: int | None) -> dict[str, Tensor]:
    """Inputs of a text tower.

    Args:
        places: of SigLIP, which was trained on lower case, filled up, and nothing hidden from it.
            Its own tokenizer writes in lower case itself; Gemma's, of SigLIP 2, may not.
    """
    if places is None:
        return dict(tokenizer(list(texts), padding=True, return_tensors="pt"))
    filled = tokenizer(
        [text.lower() for text in texts],
        padding="max_length",
        max_length=places,
        truncation=True,
        return_tensors="pt",
    )
    return {"input_ids": filled["input_ids"]}


def _reading(processor: Any, image_size: int) -> Reading:
    cut = bool(getattr(processor, "do_center_crop", False))
    size = _sides(processor.size)
    if not processor.do_resize:
        mode, side = "none", 0
    elif "shortest_edge" in size:
        mode, side = "shortest", size["shortest_edge"]
    else:
        mode, side = "squash", size["height"]
    return Reading(
        _sides(processor.crop_size)["height"] if cut else image_size,
        processor.image_mean,
        processor.image_std,
        Image.Resampling(int(processor.resample)).name.lower(),
        mode,
        side,
    )


def _sides(size: Any) -> dict[str, int]:
    """The named sides of a size that transformers' processors hold as one of several kinds."""
    names = ("shortest_edge", "longest_edge", "height", "width")
    known = dict(size) if isinstance(size, Mapping) else {n: getattr(size, n, None) for n in names}
    return {name: int(value) for name, value in known.items() if value is not None}
