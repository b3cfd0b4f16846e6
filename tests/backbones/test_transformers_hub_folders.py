"""transformers: folders as the Hub has them, and an argument that its oldest version lacks."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file, save_file
from saved_clips import save_transformers

from promptot.backbones import load_backbone

Weights = dict[str, torch.Tensor]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_transformers(tmp_path / "model")


def old_files(folder: Path) -> None:
    """config.json, preprocessor_config.json and tokenizer_config.json as OpenAI's have them."""
    config = json.loads((folder / "config.json").read_text())
    for part in ("text", "vision"):
        own = config[f"{part}_config"]
        own |= {"dropout": 0.0, "max_length": 20, "num_beams": 1, "top_k": 50, "torch_dtype": None}
        own |= {"tie_word_embeddings": True, "return_dict": True, "prefix": None}
        config[f"{part}_config_dict"] = None
    config["text_config"] |= {"eos_token_id": 2, "bos_token_id": 0, "pad_token_id": 1}
    config.pop("dtype", None)
    config |= {"torch_dtype": "float32", "transformers_version": None}
    (folder / "config.json").write_text(json.dumps(config))
    processor = json.loads((folder / "preprocessor_config.json").read_text())
    kept = {key: processor[key] for key in ("image_mean", "image_std", "resample")}
    kept |= {"do_resize": True, "do_center_crop": True, "do_normalize": True, "size": 30}
    kept |= {"crop_size": 30, "feature_extractor_type": "CLIPFeatureExtractor"}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))
    marks = {name: {"content": text, "single_word": False, "lstrip": False, "rstrip": False,
                    "normalized": True, "__type": "AddedToken"}
             for name, text in (("bos_token", "<|startoftext|>"), ("eos_token", "<|endoftext|>"),
                                ("unk_token", "<|endoftext|>"))}  # fmt: skip
    marks |= {"pad_token": "<|endoftext|>", "errors": "replace", "model_max_length": 40}
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "CLIPTokenizer", "do_lower_case": True, **marks})
    )


def with_positions(weights: Weights) -> Weights:
    name = "{}_model.embeddings.position_ids"
    return weights | {
        name.format("text"): torch.arange(40)[None],
        name.format("vision"): torch.arange(10)[None],
    }


def shards(save: Callable[[Weights, Path], object], stem: str, kind: str) -> Any:
    def write(weights: Weights, folder: Path) -> None:
        names = sorted(weights)
        index: dict[str, str] = {}
        for number in range(3):
            file = f"{stem}-{number + 1:05d}-of-00003.{kind}"
            save({name: weights[name] for name in names[number::3]}, folder / file)
            index |= dict.fromkeys(names[number::3], file)
        text = json.dumps({"metadata": {"total_size": 1}, "weight_map": index})
        (folder / f"{stem}.{kind}.index.json").write_text(text)

    return write


def save_safe(weights: Weights, file: Path) -> None:
    save_file(weights, file, metadata={"format": "pt"})


def halves(dtype: torch.dtype) -> Any:
    def write(weights: Weights, folder: Path) -> None:
        save_safe({key: value.to(dtype) for key, value in weights.items()},
                  folder / "model.safetensors")  # fmt: skip

    return write


WAYS: dict[str, Callable[[Weights, Path], None]] = {
    "positions": lambda w, f: save_safe(with_positions(w), f / "model.safetensors"),
    "pickle": lambda w, f: torch.save(with_positions(w), f / "pytorch_model.bin"),
    "shards": shards(save_safe, "model", "safetensors"),
    "pickled shards": shards(torch.save, "pytorch_model", "bin"),
    "fp16": halves(torch.float16),
    "bf16": halves(torch.bfloat16),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_folder_of_the_hub_is_the_library_s_own(way: str, folder: Path) -> None:
    old_files(folder)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    WAYS[way](weights, folder)
    backbone = load_backbone(f"hf:{folder}")

    model = transformers.CLIPModel.from_pretrained(folder).float().eval()
    tokenizer = transformers.CLIPTokenizerFast.from_pretrained(folder)
    draw = np.random.default_rng(0).integers(0, 256, (41, 77, 3), dtype=np.uint8)
    images = backbone.preprocess.test()(Image.fromarray(draw))[None]
    names = ["hot dog", "St. Bernard (dog)"]
    texts = tokenizer([f"a {name}." for name in names], padding=True, return_tensors="pt")
    with torch.no_grad():
        expected = model(**texts, pixel_values=images)
        image = backbone.encode_image(images)
        text = backbone.encode_text(backbone.tokenize(names, "a {}."))
    assert backbone.image_tower.positional_embedding.dtype == torch.float32
    assert (image - expected.image_embeds).abs().max() < 1e-5
    assert (text - expected.text_embeds).abs().max() < 1e-5


@pytest.mark.parametrize("known", [True, False], ids=["from 4.46 on", "4.45"])
def test_weights_only_is_asked_for_where_there_is_such_an_argument(
    known: bool, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = transformers.CLIPModel.from_pretrained
    asked: list[bool] = []

    def new(source: str, *, weights_only: bool = False, **rest: Any) -> Any:
        asked.append(weights_only)
        return original(source, weights_only=weights_only, **rest)

    def old(source: str, **rest: Any) -> Any:
        assert "weights_only" not in rest  # transformers 4.45 gives it to the model
        return original(source, **rest)

    monkeypatch.setattr(transformers.CLIPModel, "from_pretrained", new if known else old)
    load_backbone(f"hf:{folder}")
    assert asked == [True] * known
