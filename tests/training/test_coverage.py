"""What drop_last leaves out, held to what the batches themselves hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from promptot.data import Example, ImageLoader, ImageTask
from promptot.data.loader import Batch
from promptot.training.coverage import Ordered, coverage
from promptot.training.views import CachedViews, FixedViews


@pytest.fixture
def task(tmp_path: Path) -> ImageTask:
    """Ten classes of one image."""
    names = tuple(f"class {i}" for i in range(10))
    for i in range(10):
        pixels = np.full((8, 8, 3), 20 * i, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    train = tuple(Example(str(tmp_path / f"{i}.png"), i) for i in range(10))
    return ImageTask("ten", names, train=train)


def to_tensor(image: Image.Image) -> torch.Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float()


def loader_of(task: ImageTask, kind: str, batch_size: int, drop_last: bool = True):
    loader = ImageLoader(
        task.train, to_tensor, batch_size=batch_size, seed=3, shuffle=True, drop_last=drop_last
    )
    count = len(task.train)
    labels = torch.tensor([e.label for e in task.train])
    if kind == "fixed":
        return FixedViews(loader, torch.zeros(2, count, 4))
    if kind == "cached":
        view = Batch(torch.zeros(count, 3, 5), labels, torch.arange(count), torch.zeros(count, 4))
        return CachedViews([view, view], batch_size, drop_last, seed=3)
    return loader


@pytest.mark.parametrize("kind", ["images", "fixed", "cached"])
@pytest.mark.parametrize(
    ("batch_size", "drop_last"), [(4, True), (16, True), (4, False), (1, True)]
)
def test_the_order_is_that_of_the_batches(
    task: ImageTask, kind: str, batch_size: int, drop_last: bool
) -> None:
    loader = loader_of(task, kind, batch_size, drop_last)
    assert isinstance(loader, Ordered)
    for epoch in (1, 2, 3):
        told = list(loader.order(epoch))
        assert told == [batch.indices.tolist() for batch in loader.batches(epoch)]


@pytest.mark.parametrize("kind", ["images", "fixed", "cached"])
def test_what_no_step_sees_is_named(task: ImageTask, kind: str) -> None:
    loader = loader_of(task, kind, 8)
    found = coverage(loader, task, epochs=2)
    epochs = [
        {i for batch in loader.batches(epoch) for i in batch.indices.tolist()} for epoch in (1, 2)
    ]
    never = set(range(10)) - epochs[0] - epochs[1]
    assert found.left_out == 2
    assert found.without_class == {
        epoch: tuple(f"class {i}" for i in range(10) if i not in seen)
        for epoch, seen in enumerate(epochs, 1)
    }
    assert found.never == tuple(task.train[i].path for i in sorted(never))
    assert found.never_classes == tuple(f"class {i}" for i in sorted(never))
    said = found.sentence()
    assert "Each epoch leaves out 2 of 10 images" in said
    assert "2 of 2 epochs see no image of some class (epoch 1: 'class" in said
    one = coverage(loader, task, epochs=1)
    missing = sorted(set(range(10)) - epochs[0])
    assert (
        f"No epoch sees an image of 'class {missing[0]}', 'class {missing[1]}'." in one.sentence()
    )
    assert task.train[missing[0]].path in one.sentence()


def test_many_epochs_see_all_and_only_single_epochs_lack_a_class(task: ImageTask) -> None:
    found = coverage(loader_of(task, "images", 8), task, epochs=50)
    assert found.never == found.never_classes == ()
    assert len(found.without_class) == 50
    assert "No epoch" not in found.sentence()
    two_each = ImageTask("two", ("a",), train=tuple(Example(e.path, 0) for e in task.train))
    said = coverage(loader_of(two_each, "images", 8), two_each, epochs=50).sentence()
    assert "Each epoch leaves out 2 of 10" in said
    assert "some class" not in said


@pytest.mark.parametrize(
    ("batch_size", "drop_last"), [(5, True), (10, True), (16, True), (8, False)]
)
def test_nothing_is_said_where_every_step_is_whole(
    task: ImageTask, batch_size: int, drop_last: bool
) -> None:
    for kind in ("images", "fixed", "cached"):
        found = coverage(loader_of(task, kind, batch_size, drop_last), task, epochs=2)
        assert found.sentence() == ""
