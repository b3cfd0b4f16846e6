from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

from promptot.data import Batch, Example, ImageDataset, ImageLoader
from promptot.errors import PromptotError

WriteImage = Callable[..., Path]

AUGMENT = v2.Compose(
    [
        v2.RandomResizedCrop(8, antialias=True),
        v2.RandomHorizontalFlip(),
        v2.PILToTensor(),
        v2.ToDtype(torch.float32, scale=True),
        v2.Lambda(lambda image: image + torch.rand(1)),
    ]
)
PLAIN = v2.Compose([v2.Resize((8, 8)), v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])


class AddNoise:
    """A random transform that other processes can receive."""

    def __call__(self, image: Any) -> torch.Tensor:
        return PLAIN(image) + torch.rand(3, 8, 8)


@pytest.fixture
def examples(write_image: WriteImage) -> list[Example]:
    return [Example(str(write_image(f"{i}.png", red=i)), i % 3) for i in range(11)]


def loader(examples: list[Example], **options: Any) -> ImageLoader:
    return ImageLoader(examples, AddNoise(), **{"batch_size": 4, "seed": 1, **options})


def same(first: Iterator[Batch], second: Iterator[Batch]) -> bool:
    pairs = list(zip(first, second, strict=True))
    return bool(pairs) and all(
        torch.equal(a, b) for one, two in pairs for a, b in zip(one[:3], two[:3], strict=True)
    )


def test_batches_hold_images_labels_and_indices(examples: list[Example]) -> None:
    batches = list(ImageLoader(examples, PLAIN, batch_size=4))
    assert [len(batch.labels) for batch in batches] == [4, 4, 3]
    assert torch.cat([batch.indices for batch in batches]).tolist() == list(range(11))
    for batch in batches:
        assert batch.images.shape[1:] == (3, 8, 8)
        assert batch.labels.dtype == torch.long
        assert batch.labels.tolist() == [examples[i].label for i in batch.indices]
        assert (batch.images[:, 0, 0, 0] * 255).round().long().tolist() == batch.indices.tolist()


def test_shuffling_gives_every_image_once_and_a_new_order_per_epoch(
    examples: list[Example],
) -> None:
    shuffled = loader(examples, shuffle=True)
    orders = [torch.cat([b.indices for b in shuffled.batches(epoch)]).tolist() for epoch in (1, 2)]
    assert orders[0] != orders[1]
    assert orders[0] != list(range(11))
    assert [sorted(order) for order in orders] == [list(range(11))] * 2


def test_the_same_seed_gives_the_same_batches(examples: list[Example]) -> None:
    torch.manual_seed(1)
    first = loader(examples, shuffle=True)
    list(first.batches(1))
    torch.manual_seed(2)
    resumed = loader(examples, shuffle=True)  # starts at epoch 2 straight away
    assert same(first.batches(2), resumed.batches(2))
    assert not same(first.batches(2), loader(examples, shuffle=True, seed=2).batches(2))
    assert not same(first.batches(2), first.batches(3))


@pytest.mark.filterwarnings("ignore:This DataLoader will create")
def test_workers_change_nothing(examples: list[Example]) -> None:
    here = loader(examples, shuffle=True)
    there = loader(examples, shuffle=True, workers=2)
    for epoch in (1, 2):
        assert same(here.batches(epoch), there.batches(epoch))


def test_the_batch_size_does_not_change_an_augmentation(examples: list[Example]) -> None:
    by_four = torch.cat([batch.images for batch in loader(examples)])
    by_one = torch.cat([batch.images for batch in loader(examples, batch_size=1)])
    assert torch.equal(by_four, by_one)


def test_the_cache_changes_nothing(examples: list[Example]) -> None:
    without, with_cache = loader(examples, cache_bytes=0), loader(examples)
    for epoch in (1, 2):
        assert same(without.batches(epoch), with_cache.batches(epoch))


def test_the_cache_keeps_to_its_size(examples: list[Example]) -> None:
    dataset = ImageDataset(examples, PLAIN, cache_bytes=4 * 12 * 10 * 3)
    for index in range(11):
        dataset[0, index]
    for example in examples:
        Path(example.path).unlink()
    kept = [not hasattr(dataset[0, index], "reason") for index in range(11)]
    assert kept == [True] * 3 + [False] * 8


def test_torchvision_transforms_draw_per_seed_epoch_and_index(examples: list[Example]) -> None:
    dataset = ImageDataset(examples, AUGMENT, seed=1)
    same_again = ImageDataset(examples, AUGMENT, seed=1)
    other = ImageDataset(examples, AUGMENT, seed=2)
    image = dataset[1, 5][0]
    dataset[1, 4]
    assert torch.equal(dataset[1, 5][0], image)
    assert torch.equal(same_again[1, 5][0], image)
    for different in (dataset[2, 5], dataset[1, 6], other[1, 5]):
        assert not torch.equal(different[0], image)


def test_the_global_generator_is_left_alone(examples: list[Example]) -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    list(loader(examples, shuffle=True).batches(1))
    assert torch.equal(torch.rand(4), expected)


def test_the_generator_is_put_back_after_a_failing_transform(examples: list[Example]) -> None:
    def fail(image: object) -> torch.Tensor:
        raise ValueError("no")

    before = torch.get_rng_state()
    with pytest.raises(ValueError, match="no"):
        ImageDataset(examples, fail)[1, 0]
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("count", "drop_last", "sizes"),
    [
        (11, False, [4, 4, 3]),
        (11, True, [4, 4]),
        (8, True, [4, 4]),
        (4, True, [4]),
        (3, True, [3]),
        (1, True, [1]),
        (1, False, [1]),
    ],
)
def test_incomplete_batches(
    examples: list[Example], count: int, drop_last: bool, sizes: list[int]
) -> None:
    batches = loader(examples[:count], drop_last=drop_last)
    assert [len(batch.labels) for batch in batches] == sizes
    assert len(batches) == len(sizes)


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images_are_left_out_and_named(examples: list[Example], workers: int) -> None:
    for index in (1, 4, 5, 6, 7):
        Path(examples[index].path).write_bytes(b"")
    batches = loader(examples, workers=workers)
    seen = [batch.indices.tolist() for batch in batches]
    assert seen == [[0, 2, 3], [8, 9, 10]]
    list(batches)
    assert [Path(skipped.path).name for skipped in batches.skipped] == [
        "1.png",
        "4.png",
        "5.png",
        "6.png",
        "7.png",
    ]
    assert {skipped.reason for skipped in batches.skipped} == {"the file is empty"}


def test_nothing_to_load_is_refused(examples: list[Example]) -> None:
    with pytest.raises(PromptotError, match="no images"):
        loader([])
    with pytest.raises(PromptotError, match="batch of 0"):
        loader(examples, batch_size=0)
