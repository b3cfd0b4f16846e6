"""Each of open_clip's pretrained weights, at small sizes, is computed as the library computes it.

A tag's own configuration is shrunk, its weights are random and stand in for the download; what it
would fetch from a hub (tokenizer, text encoder) lies in a folder in the same format. The library's
model is made by its own factory. One architecture of each kind runs by default, all by `-m slow`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
import torch.nn.functional as F
from families import KINDS, WITHOUT_TOKENS, Families
from matrix import TwoBatches, check_comes_back, learn, start_model
from torch import Tensor

from prompted_library import context_in_text, prompts_in_image
from promptot.backbones import Backbone
from promptot.backbones.injection import Injection
from promptot.backbones.towers.image_extractor import ImageExtractor
from promptot.recipes import load_recipe

NAMES = ["cat", "Great white shark", "Boeing 737-800 (aircraft)"]
TEMPLATE = "a photo of a {}."
TAGS = [f"{architecture}/{tag}" for architecture, tag in open_clip.list_pretrained()]
ALL = [
    pytest.param(name, marks=[] if name in KINDS else pytest.mark.slow, id=name) for name in TAGS
]


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))


def pixels(model: Any, count: int = 2) -> Tensor:
    size = model.visual.image_size
    side = size if isinstance(size, int) else size[0]
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(1))


def encode_image(model: Any, images: Tensor) -> Tensor:
    return F.normalize(model.encode_image(images), dim=-1)


def encode_text(model: Any, ids: Tensor) -> Tensor:
    return F.normalize(model.encode_text(ids), dim=-1)


@pytest.mark.parametrize("name", ALL)
def test_its_features_are_the_library_s(both: Families, name: str) -> None:
    model, _, backbone = both(name)
    images = pixels(model, 3)
    with torch.no_grad():
        expected = encode_image(model, images)
        image = backbone.encode_image(images)
        expected_text = encode_text(model, model.tokenizer([TEMPLATE.format(n) for n in NAMES]))
        text = backbone.encode_text(backbone.tokenize(NAMES, TEMPLATE))
        single = torch.cat([backbone.encode_text(backbone.tokenize([n], TEMPLATE)) for n in NAMES])
    assert (image - expected).abs().max() < 1e-5
    assert (text - expected_text).abs().max() < 1e-5
    assert (single - text).abs().max() < 1e-5
    torch.testing.assert_close(backbone.logit_scale, model.logit_scale.detach().exp())
    assert (backbone.logit_bias is None) is (model.logit_bias is None)
    if backbone.logit_bias is not None:
        torch.testing.assert_close(backbone.logit_bias, model.logit_bias.detach())
    # what is compared tells inputs apart
    assert (expected[0] - expected[1]).norm() > 1e-3
    assert (expected_text[0] - expected_text[1]).norm() > 1e-3
    assert backbone.image_tower.promptable is not name.startswith(WITHOUT_TOKENS)


def draw(count: int, *shape: int, seed: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    tokens = [0.5 * torch.randn(shape, generator=generator) for _ in range(count)]
    return [own.requires_grad_() for own in tokens]


def check_gradients(ours: list[Tensor], theirs: list[Tensor]) -> None:
    for own, expected in zip(ours, theirs, strict=True):
        scale = expected.abs().max()
        assert scale > 1e-6
        assert (own - expected).abs().max() < 1e-4 * scale


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("name", KINDS)
def test_its_text_with_context_is_a_padded_one(both: Families, name: str, depth: int) -> None:
    """The library's own padded text, its tokens of the context overwritten in each block."""
    model, _, backbone = both(name)
    tower = backbone.text_tower
    text = getattr(model, "text", model)
    context = draw(depth, 3, tower.width)
    sequences = backbone.tokenize_names(NAMES, 3)
    ours = backbone.encode_text(backbone.pack_names(sequences), Injection(tuple(context)))
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((ours * weights).sum(), context)

    length = model.tokenizer(["a"]).shape[1]
    word = tower_word(backbone)
    ids = torch.full((len(NAMES), length), backbone.tokenizer.pad)
    for row, own in zip(ids, sequences, strict=True):
        filled = [*own[: tower.starts], word, word, word, *own[tower.starts :]]
        row[: len(filled)] = torch.tensor(filled)
    with context_in_text(text, context, tower.starts):
        expected = encode_text(model, ids)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), context)
    assert (ours - expected).abs().max() < 1e-5
    check_gradients(list(found), list(expected_gradients))


def tower_word(backbone: Backbone) -> int:
    """A token that is a word and no mark."""
    return backbone.tokenizer.encode("cat")[backbone.text_tower.starts]


@pytest.mark.parametrize("depth", [pytest.param(1, marks=pytest.mark.slow), 2])
@pytest.mark.parametrize("name", [n for n in KINDS if not n.startswith(WITHOUT_TOKENS)])
def test_its_image_with_prompts_is_the_library_s_with_more_tokens(
    both: Families, name: str, depth: int
) -> None:
    model, _, backbone = both(name)
    prompts = draw(depth, 3, backbone.image_tower.width)
    images = pixels(model)
    ours = backbone.encode_image(images, Injection(image_tokens=tuple(prompts)))
    weights = torch.randn(ours.shape, generator=torch.Generator().manual_seed(4))
    found = torch.autograd.grad((ours * weights).sum(), prompts)
    with prompts_in_image(model.visual, prompts):
        expected = encode_image(model, images)
    expected_gradients = torch.autograd.grad((expected * weights).sum(), prompts)
    assert (ours - expected).abs().max() < 1e-5
    check_gradients(list(found), list(expected_gradients))
    with torch.no_grad():
        assert (ours - backbone.encode_image(images)).norm() > 1e-3


@pytest.mark.parametrize("name", [name for name in KINDS if name.startswith(WITHOUT_TOKENS)])
def test_a_network_without_tokens_takes_none(both: Families, name: str) -> None:
    _, _, backbone = both(name)
    assert isinstance(backbone.image_tower, ImageExtractor)
    with pytest.raises(ValueError, match="promptable"):
        backbone.encode_patches(
            torch.zeros(1, 1, backbone.image_tower.width),
            Injection(image_tokens=(torch.zeros(2, backbone.image_tower.width),)),
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", TAGS)
def test_a_text_prompt_learns_and_comes_back(both: Families, name: str, tmp_path: Path) -> None:
    """Two steps; saved and loaded it gives the same logits. (Kinds and designs: test_families.)"""
    _, _, backbone = both(name)
    recipe = load_recipe(
        "coop", ["optim.lr=0.003", "optim.epochs=1", "optim.warmup_epochs=0", "optim.batch_size=3"]
    )
    loader = TwoBatches(6, backbone.preprocess.resolution)
    start = start_model(backbone, recipe)
    model = learn(backbone, recipe, loader)
    moved = [
        (own - first).abs().max()
        for own, first in zip(model.prompts.parameters(), start.prompts.parameters(), strict=True)
    ]
    assert all(0 < distance < 1 for distance in moved)
    check_comes_back(model, backbone, loader.batch.images, tmp_path)
