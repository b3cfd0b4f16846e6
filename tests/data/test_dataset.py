from __future__ import annotations

import random
from collections import defaultdict

import pytest

from promptot.data import Example, ImageTask
from promptot.errors import PromptotError


def make_task(classes: int = 5, seed: int = 0) -> ImageTask:
    """Classes of unlike sizes, mixed up, labels not in order of appearance."""
    generator = random.Random(seed)
    splits = []
    for split in ("train", "validation", "test"):
        examples = [
            Example(f"{split}/{label}/{index}.png", label)
            for label in range(classes)
            for index in range(generator.randint(1, 25))
        ]
        generator.shuffle(examples)
        splits.append(tuple(examples))
    names = tuple(f"class {label}" for label in range(classes))
    return ImageTask("made", names, *splits)


def reference_few_shot(task: ImageTask, shots: int, seed: int) -> tuple[list[Example], ...]:
    """The published sampler again, plainly, with python's global generator."""
    random.seed(seed)
    result = []
    for examples, count in ((task.train, shots), (task.validation, min(shots, 4))):
        tracker = defaultdict(list)
        for example in examples:
            tracker[example.label].append(example)
        drawn = []
        for items in tracker.values():
            drawn.extend(random.sample(items, count) if len(items) >= count else items)
        result.append(drawn)
    return tuple(result)


@pytest.mark.parametrize("shots", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_few_shot_draws_as_published(shots: int, seed: int) -> None:
    task = make_task(classes=7, seed=shots)
    train, validation = reference_few_shot(task, shots, seed)
    drawn = task.few_shot(shots, seed)
    assert list(drawn.train) == train
    assert list(drawn.validation) == validation
    assert drawn.test == task.test


def test_few_shot_draws_over_all_classes_before_the_cut() -> None:
    task = make_task()
    train, _ = reference_few_shot(task, 4, 1)
    assert list(task.few_shot(4, 1).base().train) == [e for e in train if e.label < 3]
    assert task.few_shot(4, 1).novel().train == tuple(
        Example(e.path, e.label - 3) for e in train if e.label >= 3
    )


def test_few_shot_leaves_the_global_generator_alone() -> None:
    random.seed(5)
    expected = random.random()
    random.seed(5)
    make_task_before = random.getstate()
    make_task().few_shot(2, 1)
    assert random.getstate() == make_task_before
    assert random.random() == expected


def test_no_shots_keep_everything_and_zero_is_refused() -> None:
    task = make_task()
    assert task.few_shot(None, 1) is task
    with pytest.raises(PromptotError, match="0 shots"):
        task.few_shot(0, 1)


@pytest.mark.parametrize(("classes", "base"), [(1, 1), (2, 1), (3, 2), (37, 19), (397, 199)])
def test_base_is_the_first_half_rounded_up(classes: int, base: int) -> None:
    names = tuple(f"c{i:03d}" for i in range(classes))
    task = ImageTask("t", names, test=tuple(Example(f"{i}.png", i) for i in range(classes)))
    assert task.base().class_names == names[:base]
    assert task.novel().class_names == names[base:]
    assert [e.label for e in task.base().test] == list(range(base))
    assert [e.label for e in task.novel().test] == list(range(classes - base))
    assert [e.path for e in task.novel().test] == [f"{i}.png" for i in range(base, classes)]


def test_select_relabels_in_the_given_order() -> None:
    task = make_task()
    chosen = task.select([4, 1])
    assert chosen.class_names == ("class 4", "class 1")
    assert all(e.path.split("/")[1] == ("4", "1")[e.label] for e in chosen.train)
    assert len(chosen.train) == sum(e.label in (1, 4) for e in task.train)


def test_bad_labels_and_templates_are_refused() -> None:
    with pytest.raises(PromptotError, match=r"'a\.png' has label 1, but there are 1"):
        ImageTask("t", ("a",), train=(Example("a.png", 1),))
    with pytest.raises(PromptotError, match="exactly once"):
        ImageTask("t", ("a",), template="a photo")
