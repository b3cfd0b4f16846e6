"""A backbone with a logit bias: what it does to logits, and that one without is what it was."""

from __future__ import annotations

import pytest
import torch

from promptot.adaptation import build_prompts
from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.backbones.identity import describe_structure
from promptot.recipes import load_recipe

NAMES = ("cat", "red panda", "bicycle")


@pytest.fixture(scope="module")
def tiny() -> Backbone:
    return load_backbone("bundled:tiny", "cpu")


# the logits


@pytest.mark.parametrize("recipe", ["prompt-ot", "cocoop", "zero-shot"])
def test_the_bias_is_added_to_every_logit(tiny: Backbone, biased: Backbone, recipe: str) -> None:
    config = load_recipe(recipe)
    prompts = None
    if config.trains:
        generator = torch.Generator().manual_seed(0)
        prompts = build_prompts(config.prompts, tiny, len(NAMES), generator)
    plain, moved = (Student(backbone, prompts, NAMES) for backbone in (tiny, biased))
    features = torch.nn.functional.normalize(
        torch.randn(4, tiny.embed_dim, generator=torch.Generator().manual_seed(1)), dim=1
    )
    with torch.no_grad():
        for name in ("logits", "teacher_logits"):
            with_bias, without = (getattr(each, name)(features) for each in (moved, plain))
            torch.testing.assert_close(with_bias, without - 8)
        sure = (each.logits(features).softmax(dim=1) for each in (moved, plain))
        torch.testing.assert_close(*sure)
        pairs = plain.as_matrix(), moved.as_matrix()
    if recipe == "cocoop":
        assert pairs == (None, None)
        return
    (rows, zeros), (same, bias) = pairs  # type: ignore[misc]
    assert torch.equal(rows, same)
    assert zeros.tolist() == [0] * 3
    assert bias.tolist() == [-8] * 3


def test_a_linear_head_has_a_bias_of_its_own(biased: Backbone) -> None:
    torch.manual_seed(0)
    head = LinearHead(torch.randn(2, biased.embed_dim), torch.randn(2))
    features = torch.randn(3, biased.embed_dim)
    expected = features @ head.weight.T + head.bias
    torch.testing.assert_close(Student(biased, head, ("a", "b")).logits(features), expected)


# who the backbone is


def remade(backbone: Backbone, bias: float | None = None) -> Backbone:
    """The same model with another bias; its weights are hashed anew."""
    towers = backbone.image_tower, backbone.text_tower
    tensor = None if bias is None else torch.tensor(bias)
    own = backbone.logit_scale, backbone.tokenizer, backbone.preprocess
    return Backbone(backbone.name, *towers, *own, tensor)


def test_without_a_bias_nothing_is_another_model(backbone: Backbone) -> None:
    without = remade(backbone)
    assert "logit_bias" not in without.state_dict()
    assert without.weight_hash() == backbone.weight_hash()
    assert without.identity() == backbone.identity()
    del without._buffers["logit_bias"]  # as backbones were before they could have one
    assert describe_structure(without) == describe_structure(backbone)


def test_a_bias_counts(backbone: Backbone) -> None:
    biased, other = remade(backbone, -8.0), remade(backbone, -9.0)
    assert len({each.weight_hash() for each in (backbone, biased, other)}) == 3
    assert len({each.identity().digest for each in (backbone, biased, other)}) == 3
    assert biased.identity().function == backbone.identity().function


def test_it_comes_with_the_weights(backbone: Backbone) -> None:
    parts = backbone.architecture(), backbone.tokenizer, backbone.preprocess
    weights = backbone.state_dict()
    plain = Backbone.from_weights("plain", weights, *parts)
    assert plain.logit_bias is None
    assert plain.weight_hash() == backbone.weight_hash()
    weights["logit_bias"] = torch.tensor([-8.0], dtype=torch.float64)
    made = Backbone.from_weights("biased", weights, *parts)
    assert made.logit_bias is not None
    assert made.logit_bias.shape == ()
    assert made.weight_hash() == remade(backbone, -8.0).weight_hash()
