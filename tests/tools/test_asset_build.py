"""The parts of the asset builder that can go wrong silently."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "tools"))

from asset_build.augment import RESOLUTION, clean_view, random_view
from asset_build.concepts import Concept, alias_table, clean_name
from asset_build.pretrain import _caption_loss, _mix_style
from asset_build.sources import SPLITS, STYLES
from asset_build.trunk import FastTrunk, Head


def concept(slug: str, *aliases: str) -> Concept:
    return Concept(slug, slug.replace("-", " "), "animals", "animal", "x", (), aliases)


@pytest.fixture
def picture() -> np.ndarray:
    """A red disc on a transparent ground."""
    y, x = np.mgrid[:192, :192] - 96
    disc = np.zeros((192, 192, 4), dtype=np.uint8)
    disc[x**2 + y**2 < 80**2] = (200, 30, 30, 255)
    return disc


def test_a_name_wins_over_an_alias_and_shared_aliases_are_dropped() -> None:
    cat, face = concept("cat", "kitty", "puss"), concept("cat-face", "cat", "puss")
    table = alias_table([cat, face])
    assert table["cat"] is cat
    assert table["kitty"] is cat
    assert "puss" not in table


def test_names_are_cleaned_for_prompts() -> None:
    assert clean_name("man’s shoe") == "man's shoe"
    assert clean_name("Japanese “here” button") == "Japanese here button"


def test_the_plain_view_is_the_picture_over_white(picture: np.ndarray) -> None:
    view = clean_view(picture)
    assert view.shape == (RESOLUTION, RESOLUTION, 3)
    assert view[0, 0].tolist() == [255, 255, 255]
    assert view[80, 80].tolist() == [200, 30, 30]


def test_random_views_follow_their_seed_and_differ(picture: np.ndarray) -> None:
    views = [random_view(picture, np.random.default_rng(seed)) for seed in range(40)]
    again = random_view(picture, np.random.default_rng(3))
    assert np.array_equal(views[3], again)
    assert {view.shape for view in views} == {(RESOLUTION, RESOLUTION, 3)}
    assert len({view.tobytes() for view in views}) == 40
    assert np.mean([np.ptp(view) > 40 for view in views]) > 0.9  # the disc stays visible


def test_no_style_is_listed_twice_and_every_split_is_known() -> None:
    names = [style.name for style in STYLES]
    assert len(names) == len(set(names))
    assert {style.split for style in STYLES} == set(SPLITS)


def test_style_mixing_keeps_the_shape_of_a_map_and_changes_its_statistics() -> None:
    generator = torch.Generator().manual_seed(0)
    maps = torch.randn(8, 25, 5, generator=generator) * torch.arange(1, 9).view(8, 1, 1)
    mixed = _mix_style(maps, generator)

    def standard(x: torch.Tensor) -> torch.Tensor:
        return (x - x.mean(1, keepdim=True)) / x.std(1, keepdim=True)

    torch.testing.assert_close(standard(mixed), standard(maps), atol=1e-3, rtol=1e-3)
    assert not torch.allclose(mixed.std(1), maps.std(1))


def test_caption_loss_is_least_when_every_fitting_caption_scores_alike() -> None:
    fits = torch.tensor([[True, True, False], [False, False, False]])
    even = _caption_loss(torch.tensor([[9.0, 9.0, 0.0], [0.0, 0.0, 0.0]]), fits)
    uneven = _caption_loss(torch.tensor([[9.0, 0.0, 0.0], [0.0, 0.0, 0.0]]), fits)
    assert even < uneven
    assert even.item() == pytest.approx(0.6932, abs=1e-3)


def test_the_fast_trunk_agrees_with_the_plain_one() -> None:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    model = timm.create_model("tf_efficientnet_lite0", pretrained=False).eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_var.uniform_(0.5, 2)
            module.running_mean.normal_(0, 0.2)
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        plain = model.forward_features(images).flatten(2).transpose(1, 2)
        fast = Head(model)(FastTrunk(model)(images).float())
        again = model.forward_features(images).flatten(2).transpose(1, 2)
    assert torch.equal(plain, again)  # folding left the given model alone
    assert torch.nn.functional.cosine_similarity(plain, fast, dim=-1).min() > 0.99
