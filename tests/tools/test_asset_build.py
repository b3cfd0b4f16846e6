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
from asset_build.meanings import Shares, Word
from asset_build.photographs import class_of, find_directions, list_photographs
from asset_build.pretrain import (
    TOKENS,
    Settings,
    SmallClip,
    _caption_loss,
    _mix_style,
    architecture,
)
from asset_build.sources import SPLITS, STYLES
from asset_build.trunk import FastTrunk, Head
from asset_build.wordnet import WordNet
from promptot.backbones.build import build_towers


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


NOUNS = """  1 the licence
00000001 03 n 01 entity 0 002 ~ 00000002 n 0000 ~ 00000003 n 0000 | that which is
00000002 05 n 02 animal 0 beast 0 001 @ 00000001 n 0000 | a living thing; "a wild animal"
00000003 06 n 01 instrument 0 001 @ 00000001 n 0000 | a device
00000004 05 n 01 canine 0 001 @ 00000002 n 0000 | of the family of dogs
00000005 05 n 02 dog 0 domestic_dog 0 001 @ 00000004 n 0000 | a pet
00000006 05 n 01 cat 0 001 @ 00000002 n 0000 | another pet
00000007 05 n 01 wolf 0 001 @ 00000004 n 0000 | a wild canine
00000008 06 n 01 brass 0 001 @ 00000003 n 0000 | an instrument to blow
00000009 06 n 01 trombone 0 001 @ 00000008 n 0000 | with a slide
00000010 06 n 01 sousaphone 0 001 @ 00000008 n 0000 | for marching bands
00000011 18 n 01 wolf 0 001 @ 00000001 n 0000 | a man
00000012 05 n 01 Lassie 0 001 @i 00000005 n 0000 | a dog of films
"""
INDEX = """  1 the licence
dog n 1 1 @ 1 1 00000005
domestic_dog n 1 1 @ 1 0 00000005
wolf n 2 1 @ 2 1 00000007 00000011
"""


def test_words_are_placed_among_the_classes_by_wordnet() -> None:
    wordnet = WordNet(NOUNS, INDEX, ["00000005", "00000006", "00000009"])
    assert [synset.number for synset in wordnet.lookup("Wolf")] == ["00000007", "00000011"]
    assert wordnet.classes_below["00000002"] == [0, 1]
    assert wordnet.synsets["00000002"].gloss == "a living thing"
    assert wordnet.synsets["00000012"].named
    words = [
        Word("dog", ("00000005",), (0,), True, 5.0),
        Word("cat", ("00000006",), (1,), True, 5.0),
        Word("trombone", ("00000009",), (2,), True, 3.0),
        Word("animal", ("00000002",), (), True, 5.0),
        Word("wolf", ("00000007", "00000011"), (), False, 4.0),
        Word("sousaphone", ("00000010",), (), False, 2.0),
        Word("gizmo", (), (), False, 2.0),
    ]
    shares = Shares(wordnet, words, lambda texts, _: torch.ones(len(texts), 4) / 2)
    table = torch.stack([shares.of_word(row) for row in range(len(words))])
    torch.testing.assert_close(table.sum(1), torch.ones(len(words)))
    assert table[:3].tolist() == torch.eye(3).tolist()
    assert table[3, 0] == table[3, 1] > table[3, 2]  # an animal is a dog or a cat
    assert table[4, 0] > table[4, 1] > table[4, 2]  # a wolf is nearer to the dog
    assert table[5].argmax() == 2
    assert table[6].tolist() == pytest.approx([1 / 3] * 3)  # nothing is known of it


def test_the_head_of_low_rank_agrees_with_the_trunks_own() -> None:
    generator = torch.Generator().manual_seed(0)
    classifier = torch.nn.Linear(24, 10)
    torch.nn.init.normal_(classifier.weight, generator=generator)
    torch.nn.init.zeros_(classifier.bias)
    maps = torch.randn(4000, 3, 24, generator=generator) + 1
    found = find_directions(_Passing(classifier), maps, 10)
    pooled = maps.mean(1)
    logits = classifier(pooled - pooled.mean(0)).detach()
    own = found.project(pooled) @ found.classes.T
    assert (own.argmax(1) == logits.argmax(1)).float().mean() > 0.8
    carried = torch.nn.functional.linear(pooled, found.weight, found.bias)
    torch.testing.assert_close(carried.mean(0), torch.zeros(10), atol=1e-3, rtol=0)
    assert carried.square().mean().item() == pytest.approx(1, abs=0.01)


class _Passing(torch.nn.Module):
    """A head whose features are its maps."""

    def __init__(self, classifier: torch.nn.Linear) -> None:
        super().__init__()
        self.classifier = classifier.requires_grad_(False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps


def test_every_fifth_photograph_is_held_out(tmp_path: Path) -> None:
    for number in range(11):
        (tmp_path / f"n{number:08d}_x.jpg").touch()
    held = [path.name[:9] for path in list_photographs(tmp_path, held_out=True)]
    assert held == ["n00000000", "n00000005", "n00000010"]
    assert len(list_photographs(tmp_path, held_out=False)) == 8
    assert class_of("n01443537_goldfish.jpg") == 1
    with pytest.raises(SystemExit, match="--photographs"):
        list_photographs(tmp_path / "none", held_out=True)


def test_what_the_model_s_features_are_made_of_while_training() -> None:
    """With no token left out the trainer's image path is the tower's own."""
    settings = Settings(image_width=64, text_width=64, embed_dim=64, layers=2)
    torch.manual_seed(0)
    model = SmallClip.__new__(SmallClip)
    torch.nn.Module.__init__(model)
    model.image_tower, model.text_tower = build_towers(architecture(settings))
    features = torch.rand(2, TOKENS, 1280)
    with torch.no_grad():
        whole = model.image_features(features)
        by_parts = model.image_features(features, dropout=1e-9)
    torch.testing.assert_close(whole, by_parts, atol=1e-5, rtol=1e-4)
