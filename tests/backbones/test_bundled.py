"""The model inside the package."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file

from promptot.backbones import load_backbone
from promptot.backbones.loaders.bundled_clip import ASSETS, list_bundled
from promptot.backbones.towers.stems import TrunkStem
from promptot.errors import PromptotError


@pytest.fixture(scope="module")
def tiny():
    return load_backbone("bundled:tiny")


def test_the_stem_is_the_unfused_trunk_and_a_projection(tiny) -> None:
    config = json.loads((ASSETS / "tiny" / "config.json").read_text(encoding="utf-8"))
    weights = load_file(ASSETS / "tiny" / "model.safetensors")
    prefix = "image_tower.stem.trunk."
    trunk = timm.create_model(config["architecture"]["image"]["trunk"], num_classes=0).eval()
    trunk.load_state_dict(
        {k.removeprefix(prefix): v.float() for k, v in weights.items() if k.startswith(prefix)},
        strict=False,
    )
    size = tiny.preprocess.resolution
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = tiny.image_tower.stem.proj(trunk.forward_features(images).flatten(2).mT)
        tokens = tiny.image_tower.stem(images)
    assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in tiny.image_tower.stem.modules())
    assert (tokens - expected).abs().max() < 1e-4 * expected.abs().max()


def test_it_is_what_the_card_says(tiny) -> None:
    assert isinstance(tiny.image_tower.stem, TrunkStem)
    assert tiny.image_tower.layers == tiny.text_tower.layers == 4
    assert not any(parameter.requires_grad for parameter in tiny.parameters())
    assert tiny.weight_hash() == load_backbone("bundled:tiny").weight_hash()


def test_novel_words_have_features_and_unknown_signs_do_not_crash(tiny) -> None:
    text = tiny.tokenize(["cat", "quokka", "日本", "🦊", "Ünïcödé", "a b  c"])
    features = tiny.encode_text(text)
    assert features.isfinite().all()
    assert features.shape == (6, tiny.embed_dim)


def test_other_names_are_refused() -> None:
    assert list_bundled() == ["tiny"]
    with pytest.raises(PromptotError, match="No model 'tinny' is bundled.*Did you mean 'tiny'"):
        load_backbone("bundled:tinny")
