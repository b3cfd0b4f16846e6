"""The model inside the package."""

from __future__ import annotations

import json

import pytest
import timm
import torch
from safetensors.torch import load_file

from promptot.backbones import load_backbone
from promptot.backbones.architecture import ImageShape, TransformerShape
from promptot.backbones.injection import Injection
from promptot.backbones.loaders.bundled_clip import (
    ASSETS,
    list_bundled,
    quantize_rows,
    restore_rows,
)
from promptot.backbones.towers.image_tower import ImageTower
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


def test_a_matrix_in_8_bits_keeps_each_row_within_a_254th_of_its_largest_value() -> None:
    matrix = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    matrix *= torch.tensor([1e-4, 1.0, 30.0, 1.0, 1.0, 0.0]).unsqueeze(1)  # rows of all sizes
    stored = quantize_rows("m", matrix) | {"other": torch.ones(2)}
    assert stored["m"].dtype == torch.int8
    weights = restore_rows(stored)
    assert weights.keys() == {"m", "other"}
    largest = matrix.abs().amax(1, keepdim=True)
    assert ((weights["m"] - matrix).abs() <= largest / 254 * 1.001).all()
    assert weights["m"].abs().amax(1).tolist() == pytest.approx(largest.flatten().tolist())


def test_the_class_token_begins_with_the_mean_of_the_patches() -> None:
    """Against the same tower without it whose class embedding is moved there by hand."""
    shape = TransformerShape(32, 2, 2, 64, "gelu")
    towers = [
        ImageTower(torch.nn.Identity(), ImageShape(shape, patches=9, pool=pool), 16).eval()
        for pool in ("class_with_mean", "class")
    ]
    torch.manual_seed(0)
    for parameter in towers[0].parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    towers[1].load_state_dict(towers[0].state_dict())
    tokens, prompts = torch.randn(3, 9, 32), (torch.randn(2, 32), torch.randn(2, 32))
    with torch.no_grad():
        whole = towers[0].encode(tokens, Injection(image_tokens=prompts))
        for row in range(3):
            towers[1].class_embedding.copy_(towers[0].class_embedding + tokens[row].mean(0))
            one = towers[1].encode(tokens[row : row + 1], Injection(image_tokens=prompts))
            torch.testing.assert_close(one[0], whole[row], atol=1e-5, rtol=1e-5)
