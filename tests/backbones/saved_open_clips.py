"""Small models of open_clip's families with random weights, in folders for `local-dir:`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
from families import (
    HEADS,
    LAYERS,
    VOCABULARY,
    WIDTH,
    randomise,
    save_text_config,
    save_tokenizer,
    shrink,
    small_trunks,
)
from safetensors.torch import save_file

ARCHITECTURES = {
    "SigLIP": "ViT-B-16-SigLIP",
    "SigLIP 2": "ViT-B-16-SigLIP2",
    "EVA": "EVA02-B-16",
    "EVA, norms behind": "EVA02-E-14",
    "PE": "PE-Core-B-16",
    "CoCa": "coca_ViT-B-32",
    "ResNet": "RN50",
    "ConvNeXt": "convnext_base_w",
    "FastViT": "MobileCLIP2-S0",
    "ViTamin": "ViTamin-S",
    "hybrid": "MobileCLIP-B",
    "CLIPA": "ViT-L-14-CLIPA",
    "MetaCLIP 2": "ViT-H-14-worldwide",
    "RoBERTa": "roberta-ViT-B-32",
    "XLM-R": "xlm-roberta-base-ViT-B-32",
    "NLLB": "nllb-clip-base-siglip",
}
BIOMEDCLIP: dict[str, Any] = {
    "embed_dim": 512,
    "vision_cfg": {
        "timm_model_name": "vit_base_patch16_224",
        "timm_model_pretrained": False,
        "timm_pool": "",
        "timm_proj": "linear",
        "image_size": 224,
    },
    "text_cfg": {
        "hf_model_name": "bert",
        "hf_tokenizer_name": "bert",
        "hf_proj_type": "mlp",
        "hf_pooler_type": "cls_last_hidden_state_pooler",
        "context_length": 256,
    },
}
"""As that model describes itself; its text encoder is a BERT."""
KINDS = (*ARCHITECTURES, "BiomedCLIP")


def save_kind(folder: Path, kind: str) -> str:
    """A folder with a small model of one of `KINDS`; its name for `load_backbone`."""
    folder.mkdir(parents=True, exist_ok=True)
    own = BIOMEDCLIP if kind == "BiomedCLIP" else open_clip.get_model_config(ARCHITECTURES[kind])
    config = shrink(own)
    text = config["text_cfg"]
    if "hf_tokenizer_name" in text:
        save_tokenizer(folder, text["hf_tokenizer_name"])
    if "hf_model_name" in text:
        _save_text_config(folder / "text", text["hf_model_name"])
        text |= {"hf_model_name": str(folder / "text"), "hf_model_pretrained": False}
    kind_of_model = open_clip.CLIP
    if config.get("custom_text") or "hf_model_name" in text:
        kind_of_model = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP
    with small_trunks():
        model = kind_of_model(**{k: v for k, v in config.items() if k != "custom_text"})
    randomise(model)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    squash = {"mean": [0.5] * 3, "std": [0.5] * 3, "resize_mode": "squash"}
    described = {"model_cfg": config, "preprocess_cfg": squash if "SigLIP" in kind else {}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    return f"open_clip:local-dir:{folder}"


def _save_text_config(folder: Path, name: str) -> None:
    from transformers import BertConfig

    if name != "bert":
        save_text_config(folder, name)
        return
    sizes = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS}
    BertConfig(**sizes, vocab_size=VOCABULARY, intermediate_size=48).save_pretrained(folder)
