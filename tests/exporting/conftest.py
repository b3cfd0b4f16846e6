"""Small random CLIPs of each library in local folders, and adapters in them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from open_clip.tokenizer import SimpleTokenizer
from safetensors.torch import save_file
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel

from promptot.adaptation import build_prompts
from promptot.backbones import Backbone, load_backbone
from promptot.recipes import describe, load_recipe
from promptot.runs.adapter import save_adapter

sys.path.insert(0, str(Path(__file__).parent))

NAMES = ("cat", "red panda", "St. Bernard (dog)")

OPEN_CLIP: dict[str, Any] = {
    "embed_dim": 32,
    "quick_gelu": False,
    "vision_cfg": {
        "image_size": 36, "layers": 3, "width": 64, "head_width": 32, "patch_size": 12,
        "pool_type": "avg", "no_ln_pre": True, "norm_kwargs": {"eps": 1e-4},
    },
    "text_cfg": {
        "context_length": 40, "vocab_size": 49408, "width": 48, "heads": 3, "layers": 2,
        "proj_bias": True, "mlp_ratio": 2.5,
    },
}  # fmt: skip
TRANSFORMERS: dict[str, Any] = {
    "projection_dim": 20,
    "vision_config": {
        "hidden_size": 96, "num_attention_heads": 3, "num_hidden_layers": 3,
        "intermediate_size": 200, "image_size": 30, "patch_size": 10, "layer_norm_eps": 1e-4,
    },
    "text_config": {
        "hidden_size": 40, "num_attention_heads": 5, "num_hidden_layers": 2,
        "intermediate_size": 64, "max_position_embeddings": 33,
        "bos_token_id": 49406, "eos_token_id": 49407, "pad_token_id": 49407,
    },
}  # fmt: skip


def _randomise(model: torch.nn.Module) -> torch.nn.Module:
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return model.eval()


@pytest.fixture(scope="session")
def open_clip_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random open_clip CLIP with what its configuration can do: mean pooling, a text bias."""
    folder = tmp_path_factory.mktemp("open_clip")
    torch.manual_seed(0)
    model = _randomise(open_clip.CLIP(**OPEN_CLIP))
    preprocess = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bilinear"}
    config = {"model_cfg": OPEN_CLIP, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


@pytest.fixture(scope="session")
def transformers_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIPModel with tokenizer and image processor."""
    folder = tmp_path_factory.mktemp("transformers")
    torch.manual_seed(1)
    _randomise(CLIPModel(CLIPConfig(**TRANSFORMERS))).save_pretrained(folder)
    CLIPImageProcessor(
        size={"shortest_edge": 30}, crop_size={"height": 30, "width": 30}
    ).save_pretrained(folder)
    bpe = SimpleTokenizer()
    special = {49406: "<|startoftext|>", 49407: "<|endoftext|>"}
    vocabulary = {special.get(index, token): index for token, index in bpe.encoder.items()}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    merges = sorted(bpe.bpe_ranks, key=bpe.bpe_ranks.__getitem__)
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    tokens = dict.fromkeys(("eos_token", "unk_token", "pad_token"), "<|endoftext|>")
    config = {"tokenizer_class": "CLIPTokenizer", "bos_token": "<|startoftext|>", **tokens}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def backbones(clip_file: Path, open_clip_folder: Path, transformers_folder: Path) -> Callable:
    """`backbones("open_clip")`: a loaded backbone of that source; each is loaded once."""
    names = {
        "openai": f"openai:{clip_file}",
        "open_clip": f"open_clip:local-dir:{open_clip_folder}",
        "hf": f"hf:{transformers_folder}",
        "bundled": "bundled:tiny",
    }
    loaded: dict[str, Backbone] = {}

    def get(source: str) -> Backbone:
        if source not in loaded:
            loaded[source] = load_backbone(names[source], "cpu")
        return loaded[source]

    return get


@pytest.fixture(scope="session")
def make_adapter(
    backbones: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Path]:
    """`make_adapter("open_clip", "maple")`: an adapter whose prompts are far from their start."""

    def make(source: str, recipe: str = "prompt-ot", *overrides: str, seed: int = 0) -> Path:
        backbone, values = backbones(source), load_recipe(recipe, overrides)
        generator = torch.Generator().manual_seed(seed)
        prompts = build_prompts(values.prompts, backbone, len(NAMES), generator)
        with torch.no_grad():
            for parameter in prompts.parameters():
                parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
        folder = tmp_path_factory.mktemp("adapter")
        save_adapter(folder, prompts, backbone, NAMES, "a photo of a {}.")
        return folder

    return make


@pytest.fixture(scope="session")
def sigmoid_adapter(
    backbones: Callable[[str], Backbone], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Backbone]:
    """An adapter of a run with a sigmoid, and the random CLIP with a logit bias that it is for."""
    plain, recipe = backbones("hf"), load_recipe("prompt-ot", ["objective.fit=sigmoid"])
    parts = plain.image_tower, plain.text_tower, plain.logit_scale, plain.tokenizer
    backbone = Backbone("biased", *parts, plain.preprocess, torch.tensor(-2.5))
    generator = torch.Generator().manual_seed(0)
    prompts = build_prompts(recipe.prompts, backbone, len(NAMES), generator)
    folder = tmp_path_factory.mktemp("sigmoid")
    template, values = recipe.data.template, describe(recipe)
    save_adapter(folder, prompts, backbone, NAMES, template, recipe=values)
    return folder, backbone
