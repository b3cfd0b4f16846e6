"""Weights from transformers' CLIPModel: a hub repository or a local folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

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
from promptot.errors import PromptotError


class TransformersTokenizer:
    """A CLIP tokenizer of transformers."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, truncation=False, verbose=False)["input_ids"]
        return ids


def load_transformers(source: str) -> Backbone:
    """Load a CLIPModel with its tokenizer and preprocessing from a repository or folder.

    Raises:
        PromptotError: transformers is not installed, nothing can be loaded from `source`, or
            the model is not a CLIP.
    """
    try:
        import transformers
    except ImportError as error:
        raise PromptotError(
            "Loading 'hf:' weights needs transformers.", fix="pip install 'promptot[hf]'"
        ) from error

    try:
        config = transformers.AutoConfig.from_pretrained(source)
        _check_supported(config)
        model = transformers.CLIPModel.from_pretrained(source, torch_dtype=torch.float32)
        tokenizer = transformers.CLIPTokenizerFast.from_pretrained(source)
        processor = transformers.CLIPImageProcessor.from_pretrained(source)
    except (OSError, ValueError) as error:
        where = "folder" if Path(source).is_dir() else "repository"
        raise PromptotError(
            f"transformers could not load a CLIP from the {where} '{source}': {error}",
            fix="It needs the configuration, the weights, the tokenizer and the preprocessor "
            "as `save_pretrained` writes them.",
        ) from error
    if len(tokenizer) > config.text_config.vocab_size:
        raise PromptotError(
            f"The tokenizer in '{source}' has {len(tokenizer)} tokens and does not belong to the "
            f"model, which knows {config.text_config.vocab_size}.",
            fix="Save the model's own tokenizer beside it.",
        )
    return convert(model, TransformersTokenizer(tokenizer), read_preprocess(processor), source)


def convert(
    model: Any, tokenizer: TransformersTokenizer, preprocess: Preprocess, source: str
) -> Backbone:
    """A transformers CLIPModel → a backbone."""
    config = model.config
    vision, text = config.vision_config, config.text_config
    architecture = Architecture(
        embed_dim=config.projection_dim,
        image=ImageShape(
            _transformer_shape(vision),
            patches=(vision.image_size // vision.patch_size) ** 2,
            patch=vision.patch_size,
        ),
        text=TextShape(
            _transformer_shape(text),
            vocabulary=text.vocab_size,
            context_length=text.max_position_embeddings,
        ),
    )
    image_tower, text_tower = build_towers(architecture, rename(model.state_dict()))
    scale = model.logit_scale.detach().float().exp()
    return Backbone(f"hf:{source}", image_tower, text_tower, scale, tokenizer, preprocess)


def read_preprocess(processor: Any) -> Preprocess:
    """What a CLIPImageProcessor does, as our `Preprocess`."""
    crop = processor.crop_size
    height = crop["height"] if isinstance(crop, Mapping) else crop.height
    names = {2: "bilinear", 3: "bicubic"}
    return Preprocess(
        int(height),
        tuple(processor.image_mean),
        tuple(processor.image_std),
        names.get(int(processor.resample), "bicubic"),
    )


def _check_supported(config: Any) -> None:
    if config.model_type != "clip":
        raise PromptotError(
            f"A transformers model of the type '{config.model_type}' is not supported yet.",
            fix="Use a CLIPModel, such as 'hf:openai/clip-vit-base-patch16'.",
        )


def _transformer_shape(config: Any) -> TransformerShape:
    if config.hidden_act not in ("quick_gelu", "gelu"):
        raise PromptotError(
            f"The activation '{config.hidden_act}' is not supported yet.",
            fix="Use a CLIP with 'quick_gelu' or 'gelu'.",
        )
    return TransformerShape(
        width=config.hidden_size,
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        mlp_width=config.intermediate_size,
        activation=config.hidden_act,
        eps=config.layer_norm_eps,
    )


TOWERS = {"vision_model": "image_tower", "text_model": "text_tower"}
TENSORS = {
    "embeddings.class_embedding": "class_embedding",
    "embeddings.patch_embedding.weight": "stem.conv1.weight",
    "embeddings.position_embedding.weight": "positional_embedding",
    "embeddings.token_embedding.weight": "token_embedding.weight",
}
MODULES = {
    "pre_layrnorm": "ln_pre",
    "post_layernorm": "ln_post",
    "final_layer_norm": "ln_final",
}
BLOCK_MODULES = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def rename(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Keys of transformers' CLIPModel → keys of our towers; q, k and v become one matrix."""
    renamed = {
        "image_tower.proj": weights["visual_projection.weight"].T,
        "text_tower.text_projection": weights["text_projection.weight"].T,
    }
    for key, value in weights.items():
        model, _, rest = key.partition(".")
        if model not in TOWERS or rest.endswith("position_ids"):
            continue
        tower = TOWERS[model]
        if rest in TENSORS:
            renamed[f"{tower}.{TENSORS[rest]}"] = value
        elif rest.startswith("encoder.layers."):
            _, _, index, rest = rest.split(".", 3)
            block = f"{tower}.transformer.resblocks.{index}"
            module, _, kind = rest.rpartition(".")
            if module == "self_attn.q_proj":
                parts = [
                    weights[key.replace("q_proj", name)] for name in ("q_proj", "k_proj", "v_proj")
                ]
                renamed[f"{block}.attn.in_proj_{kind}"] = torch.cat(parts)
            elif module in BLOCK_MODULES:
                renamed[f"{block}.{BLOCK_MODULES[module]}.{kind}"] = value
        else:
            module, _, kind = rest.rpartition(".")
            renamed[f"{tower}.{MODULES[module]}.{kind}"] = value
    return renamed
