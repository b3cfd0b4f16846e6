"""What is kept of images: computed once, on the disk, and never in the way."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from promptot.backbones import Backbone
from promptot.data import Example, load_folder
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.training_views import TrainingViews
from promptot.recipes import load_recipe
from promptot.training.batches import evaluation_loader

RECIPE = load_recipe("ivlp", ["data.views=2", "optim.batch_size=3"])


class Stem:
    """Counts the images that go through a backbone's stem."""

    def __init__(self, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        self.images = 0
        forward = backbone.image_tower.stem.forward

        def counted(images: torch.Tensor) -> torch.Tensor:
            self.images += len(images)
            return forward(images)

        monkeypatch.setattr(backbone.image_tower.stem, "forward", counted)


@pytest.fixture
def stem(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Stem:
    return Stem(backbone, monkeypatch)


def joined(batches):
    columns = zip(*batches, strict=True)
    return [torch.cat(column) for column in columns]


def test_features_are_those_of_the_images_and_computed_once(
    backbone: Backbone, photos: Path, tmp_path: Path, stem: Stem
) -> None:
    examples = load_folder(photos).train
    kept = ImageFeatures(tmp_path / "cache", backbone, tokens=True)
    tokens, labels, indices, teacher = joined(kept.batches(examples))
    assert stem.images == 24
    assert labels.tolist() == [example.label for example in examples]
    assert indices.tolist() == list(range(24))
    images = torch.cat([batch.images for batch in evaluation_loader(backbone, examples)])
    torch.testing.assert_close(tokens, backbone.image_tower.stem(images))
    torch.testing.assert_close(teacher, backbone.encode_image(images))
    before = stem.images
    part = [replace(example, label=0) for example in examples[::-3]]
    again = joined(kept.batches(part))
    fresh = joined(ImageFeatures(tmp_path / "cache", backbone, tokens=True).batches(part))
    assert stem.images == before
    assert torch.equal(again[0], tokens.flip(0)[::3])
    assert all(map(torch.equal, again, fresh))
    assert set(again[1].tolist()) == {0}


def test_only_what_is_new_is_computed(
    backbone: Backbone, photos: Path, tmp_path: Path, stem: Stem
) -> None:
    examples = load_folder(photos).train
    list(ImageFeatures(tmp_path, backbone, tokens=True).batches(examples[:10]))
    list(ImageFeatures(tmp_path, backbone, tokens=True).batches(examples))
    assert stem.images == 24
    assert len(list(tmp_path.glob("features-*"))) == 2


def test_damaged_and_foreign_files_are_no_help_and_no_harm(
    backbone: Backbone, photos: Path, tmp_path: Path, stem: Stem
) -> None:
    examples = load_folder(photos).train[:4]
    cache = tmp_path / "cache"
    whole = joined(ImageFeatures(cache, backbone, tokens=True).batches(examples))
    (file,) = cache.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    (cache / "features-notes.safetensors").write_text("hello")
    assert torch.equal(
        joined(ImageFeatures(cache, backbone, tokens=True).batches(examples))[0], whole[0]
    )
    assert stem.images == 8
    backbone.precision = "bf16"  # other features, though the weights have one name
    try:
        list(ImageFeatures(cache, backbone, tokens=True).batches(examples))
    finally:
        backbone.precision = "fp32"
    assert stem.images == 12


def test_unreadable_images_are_left_out_at_their_places(
    backbone: Backbone, photos: Path, tmp_path: Path, stem: Stem
) -> None:
    good = load_folder(photos).train[:3]
    (photos / "red" / "0.png").write_bytes(b"no image")
    broken = [Example(str(photos / "red" / "0.png"), 2), Example(str(photos / "none.png"), 2)]
    kept = ImageFeatures(tmp_path / "cache", backbone, tokens=True)
    examples = [broken[0], good[0], broken[1], *good[1:]]
    for _ in range(2):
        assert joined(kept.batches(examples))[2].tolist() == [1, 3, 4]
    assert list(kept.batches(broken)) == []


def test_where_tokens_are_as_large_as_images_nothing_is_kept(
    backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    kept = ImageFeatures(tmp_path / "cache", backbone, tokens=False)
    batches = list(kept.batches(load_folder(photos).train))
    assert batches[0].images.shape[1:] == (3, 32, 32)
    assert not (tmp_path / "cache").exists()


def test_views_are_shared_and_kept(
    backbone: Backbone, photos: Path, tmp_path: Path, stem: Stem
) -> None:
    task = load_folder(photos).few_shot(2, seed=1)

    def batches(seed: int = 1, recipe=RECIPE, views=None):
        views = views or TrainingViews(tmp_path, backbone, task, seed, tokens=True)
        return [b for epoch in (1, 2) for b in views.loader(recipe).batches(epoch)]

    first = batches()
    assert stem.images == 16
    other = load_recipe("prompt-ot", ["data.views=2", "optim.batch_size=3"])
    for again in (batches(), batches(recipe=other)):
        assert all(torch.equal(a.images, b.images) for a, b in zip(first, again, strict=True))
        assert all(torch.equal(a.teacher, b.teacher) for a, b in zip(first, again, strict=True))
    assert stem.images == 16
    assert not torch.equal(batches(seed=2)[0].images, first[0].images)
    batches(recipe=load_recipe("ivlp", ["data.views=2", "data.smallest_crop=0.5"]))
    assert stem.images == 48
    for file in tmp_path.glob("views-*"):
        file.write_bytes(b"damaged")
    assert torch.equal(batches()[0].images, first[0].images)


def test_views_are_made_only_where_they_are_asked_for(
    backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    views = TrainingViews(tmp_path, backbone, load_folder(photos), 1)
    assert views.loader(load_recipe("ivlp")) is None
    assert views.loader(load_recipe("zero-shot", ["data.views=2"])) is None
