from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from promptot.data import ImageTask, choose_shots, find_unreadable, load_folder
from promptot.errors import PromptotError

WriteImage = Callable[..., Path]


@pytest.fixture
def task(tmp_path: Path, write_image: WriteImage) -> ImageTask:
    for split, count in (("train", 8), ("val", 3)):
        for name in ("ant", "bee", "cat"):
            for index in range(count):
                write_image(f"{split}/{name}/{index}.png")
    return load_folder(tmp_path)


def spoil(*paths: str) -> None:
    for path in paths:
        Path(path).write_bytes(b"")


def test_readable_shots_are_the_published_draw(task: ImageTask) -> None:
    assert choose_shots(task, 4, seed=1) == task.few_shot(4, seed=1)
    assert choose_shots(task, None, seed=1) == task


def test_an_unreadable_shot_is_replaced_and_named(task: ImageTask) -> None:
    drawn = task.few_shot(4, seed=1)
    bad = drawn.train[5]
    spoil(bad.path)
    chosen = choose_shots(task, 4, seed=1)
    assert len(chosen.train) == len(drawn.train)
    replaced = chosen.train[5]
    assert replaced.label == bad.label
    assert replaced in task.train
    assert replaced not in drawn.train
    assert [e for e in chosen.train if e is not replaced] == [e for e in drawn.train if e != bad]
    assert chosen.validation == drawn.validation
    assert [(s.path, s.reason) for s in chosen.skipped] == [(bad.path, "the file is empty")]
    assert choose_shots(task, 4, seed=1) == chosen


def test_unreadable_replacements_are_passed_over_too(task: ImageTask) -> None:
    bees = [e for e in task.train if e.label == 1]
    good = bees[3]
    spoil(*(e.path for e in bees if e != good))
    chosen = choose_shots(task, 4, seed=2)
    assert [e for e in chosen.train if e.label == 1] == [good]
    assert {s.path for s in chosen.skipped} == {e.path for e in bees if e != good}
    assert len(chosen.skipped) == 7
    assert sum(e.label == 0 for e in chosen.train) == 4


def test_a_class_without_a_readable_image_stops_everything(task: ImageTask) -> None:
    spoil(*(e.path for e in task.train if e.label == 1))
    for shots in (2, None):
        with pytest.raises(PromptotError) as caught:
            choose_shots(task, shots, seed=1)
        assert "'bee' has no readable training image" in str(caught.value)
        assert "the file is empty" in str(caught.value)
        assert "'ant'" not in str(caught.value)


def test_a_class_without_training_images_stops_everything(task: ImageTask) -> None:
    with pytest.raises(PromptotError, match="classes 'ant', 'bee' have no"):
        choose_shots(replace(task, train=tuple(e for e in task.train if e.label == 2)), 2, 1)


def test_all_images_without_the_unreadable_ones(task: ImageTask) -> None:
    spoil(task.train[3].path, task.validation[0].path)
    chosen = choose_shots(task, None, seed=1)
    assert chosen.train == task.train[:3] + task.train[4:]
    assert chosen.validation == task.validation[1:]
    assert len(chosen.skipped) == 2


def test_what_was_skipped_before_is_kept(task: ImageTask, write_image: WriteImage) -> None:
    write_image("train/stray.png")
    again = load_folder(Path(task.train[0].path).parents[2])
    assert len(again.skipped) == 1
    spoil(again.few_shot(1, 1).train[0].path)
    assert len(choose_shots(again, 1, 1).skipped) == 2


def test_progress_counts_every_image(task: ImageTask) -> None:
    calls: list[None] = []
    spoil(task.train[3].path, task.train[7].path)
    found = find_unreadable(task.train, progress=lambda: calls.append(None))
    assert [s.path for s in found] == [task.train[3].path, task.train[7].path]
    assert len(calls) == len(task.train)
