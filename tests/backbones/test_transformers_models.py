"""Parity with transformers' own forward pass, on random weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from open_clip.tokenizer import SimpleTokenizer
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from promptot.backbones import load_backbone
from promptot.errors import PromptotError

NAMES = ["cat", "hot dog", "great white shark", "Boeing 737-800", "St. Bernard (dog)"]


def make_config(vision: dict, text: dict, projection: int) -> CLIPConfig:
    special = {"bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407}
    return CLIPConfig(
        text_config={**text, **special}, vision_config=vision, projection_dim=projection
    )


SHAPES = {
    "B/32": make_config({"patch_size": 32}, {}, 512),
    "B/16": make_config({"patch_size": 16, "hidden_act": "gelu"}, {"hidden_act": "gelu"}, 512),
    "odd-1": make_config(
        {
            "hidden_size": 96,
            "num_attention_heads": 3,
            "num_hidden_layers": 2,
            "intermediate_size": 200,
            "image_size": 30,
            "patch_size": 10,
            "layer_norm_eps": 1e-3,
        },
        {
            "hidden_size": 40,
            "num_attention_heads": 5,
            "num_hidden_layers": 3,
            "intermediate_size": 64,
            "max_position_embeddings": 33,
        },
        20,
    ),
    "odd-2": make_config(
        {
            "hidden_size": 64,
            "num_attention_heads": 1,
            "num_hidden_layers": 1,
            "intermediate_size": 64,
            "image_size": 28,
            "patch_size": 14,
            "hidden_act": "gelu",
        },
        {
            "hidden_size": 48,
            "num_attention_heads": 2,
            "num_hidden_layers": 1,
            "intermediate_size": 96,
        },
        72,
    ),
}


def save_tokenizer(folder: Path) -> None:
    """CLIP's vocabulary in transformers' own files, written from open_clip's copy of it."""
    bpe = SimpleTokenizer()
    names = {49406: "<|startoftext|>", 49407: "<|endoftext|>"}
    vocabulary = {names.get(index, token): index for token, index in bpe.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    special = {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>"}
    special |= {"unk_token": "<|endoftext|>", "pad_token": "<|endoftext|>"}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", **special})
    )


def save_model(folder: Path, config: CLIPConfig) -> CLIPModel:
    torch.manual_seed(0)
    model = CLIPModel(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    save_tokenizer(folder)
    size = config.vision_config.image_size
    CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}
    ).save_pretrained(folder)
    return model


@pytest.mark.parametrize(
    "shape", [pytest.param(s, marks=pytest.mark.slow) if s == "B/16" else s for s in SHAPES]
)
def test_parity(shape: str, tmp_path: Path) -> None:
    config = SHAPES[shape]
    model = save_model(tmp_path, config)
    backbone = load_backbone(f"hf:{tmp_path}")
    size = config.vision_config.image_size
    assert backbone.preprocess.resolution == size
    images = torch.randn(2, 3, size, size)

    bpe = SimpleTokenizer(context_length=config.text_config.max_position_embeddings)
    ids = bpe([f"a photo of a {name}." for name in NAMES])
    with torch.no_grad():
        vision = model.vision_model(pixel_values=images).pooler_output
        expected_image = F.normalize(model.visual_projection(vision), dim=-1)
        language = model.text_model(input_ids=ids).pooler_output
        expected_text = F.normalize(model.text_projection(language), dim=-1)
        image = backbone.encode_image(images)
        text = backbone.encode_text(backbone.tokenize(NAMES))
    assert (image - expected_image).abs().max() < 1e-5
    assert (text - expected_text).abs().max() < 1e-5
    torch.testing.assert_close(backbone.logit_scale, model.logit_scale.detach().exp())


def test_another_kind_of_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "flava"}))
    with pytest.raises(PromptotError, match="type 'flava' is not supported yet.*SiglipModel"):
        load_backbone(f"hf:{tmp_path}")


def test_an_empty_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PromptotError, match="could not load a CLIP from the folder"):
        load_backbone(f"hf:{tmp_path}")


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    save_model(tmp_path, SHAPES["odd-1"])
    vocabulary = json.loads((tmp_path / "vocab.json").read_text())
    vocabulary["one more"] = len(vocabulary)
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary))
    with pytest.raises(PromptotError, match="does not belong to the model"):
        load_backbone(f"hf:{tmp_path}")
