"""Small random CLIPs, saved as each library saves them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file

SMALL: dict[str, Any] = {
    "embed_dim": 48,
    "vision_cfg": {"image_size": 36, "layers": 2, "width": 96, "head_width": 32, "patch_size": 12},
    "text_cfg": {
        "context_length": 40,
        "vocab_size": 49408,
        "width": 80,
        "heads": 5,
        "layers": 2,
    },
}


def randomise(model: torch.nn.Module) -> torch.nn.Module:
    """Weights large enough that a wrong activation or head shows, and no norm is the identity."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() == 1 and "class_embedding" not in name:
                parameter.add_(0.1 * noise)
            elif parameter.dim() == 2 and "embedding" not in name:
                parameter.copy_(noise * 1.5 / max(parameter.shape) ** 0.5)
    return model.eval()


def save_open_clip(folder: Path, config: dict[str, Any] | None = None, **changes: Any) -> Path:
    """A folder for `open_clip:local-dir:`; its weights are in open_clip_model.safetensors."""
    config = {**SMALL, **(config or {}), **changes}
    model = randomise(open_clip.CLIP(**config))
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "open_clip_config.json").write_text(
        json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    )
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def save_transformers(folder: Path) -> Path:
    """A folder for `hf:`, 30 px."""
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

    special = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    config = CLIPConfig(
        vision_config={
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "intermediate_size": 200,
            "image_size": 30,
            "patch_size": 10,
        },
        text_config={
            "hidden_size": 40,
            "num_attention_heads": 5,
            "num_hidden_layers": 2,
            "intermediate_size": 64,
            "max_position_embeddings": 40,
            **special,
        },
        projection_dim=20,
    )
    randomise(CLIPModel(config)).save_pretrained(folder)
    size = {"shortest_edge": 30}
    CLIPImageProcessor(size=size, crop_size={"height": 30, "width": 30}).save_pretrained(folder)
    bpe = SimpleTokenizer()
    names = {49406: "<|startoftext|>", 49407: "<|endoftext|>"}
    vocabulary = {names.get(index, token): index for token, index in bpe.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    tokens = {"bos_token": names[49406], "eos_token": names[49407]}
    tokens |= {"unk_token": names[49407], "pad_token": names[49407]}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", **tokens})
    )
    return folder
