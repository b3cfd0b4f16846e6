from __future__ import annotations

import pytest

from promptot.data import Example, ImageTask, split_examples
from promptot.data.task import by_label
from promptot.errors import PromptotError


def make_task(*sizes: int) -> ImageTask:
    examples = [Example(f"{c}/{i}.png", c) for c, size in enumerate(sizes) for i in range(size)]
    return ImageTask("t", tuple(map(str, range(len(sizes)))), train=tuple(examples))


def sizes(task: ImageTask) -> list[tuple[int, int, int]]:
    splits = [by_label(split) for split in (task.train, task.validation, task.test)]
    return [tuple(len(split.get(c, ())) for split in splits) for c in range(len(task.class_names))]


def test_every_class_is_divided() -> None:
    assert sizes(split_examples(make_task(1, 2, 3, 4, 10, 100), seed=1)) == [
        (1, 0, 0),
        (1, 0, 1),
        (2, 0, 1),
        (2, 1, 1),
        (5, 2, 3),
        (50, 20, 30),
    ]


def test_other_fractions() -> None:
    task = make_task(1, 2, 3, 10, 11)
    no_validation = split_examples(task, 1, (0.8, 0.0, 0.2))
    assert sizes(no_validation) == [(1, 0, 0), (1, 0, 1), (2, 0, 1), (8, 0, 2), (9, 0, 2)]
    all_of_it = split_examples(task, 1, (1.0, 0.0, 0.0))
    assert sizes(all_of_it) == [(n, 0, 0) for n in (1, 2, 3, 10, 11)]


@pytest.mark.parametrize("total", range(1, 40))
@pytest.mark.parametrize("fractions", [(0.5, 0.2, 0.3), (0.1, 0.0, 0.9), (0.9, 0.1, 0.0)])
def test_nothing_is_lost_or_doubled(total: int, fractions: tuple[float, float, float]) -> None:
    task = make_task(total)
    divided = split_examples(task, 3, fractions)
    assert sorted(e.path for e in (*divided.train, *divided.validation, *divided.test)) == sorted(
        e.path for e in task.train
    )
    assert divided.train
    if fractions[1] == 0:
        assert not divided.validation
    if fractions[2] == 0:
        assert not divided.test
    elif total > 1:
        assert divided.test


def test_the_seed_decides() -> None:
    task = make_task(20, 20)
    assert split_examples(task, 1) == split_examples(task, 1)
    assert split_examples(task, 1).test != split_examples(task, 2).test


def test_own_splits_are_respected() -> None:
    task = ImageTask("t", ("a",), train=(Example("1", 0),) * 9, test=(Example("2", 0),))
    assert split_examples(task, 1) is task


@pytest.mark.parametrize("fractions", [(0.5, 0.5, 0.5), (0.0, 0.5, 0.5), (1.2, -0.2, 0.0)])
def test_impossible_fractions(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(PromptotError, match="add up to 1"):
        split_examples(make_task(4), 1, fractions)
