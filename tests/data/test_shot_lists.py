"""Few-shot lists: the published draw, and a list that is kept, published and replayed."""

from __future__ import annotations

import json
import random
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from promptot.data.catalog.public import load_public
from promptot.data.shot_lists import read_shot_list, replay, shot_list, write_shot_list
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError


def simulated(task: ImageTask, shots: int, seed: int) -> tuple[list[str], list[str]]:
    """The community's sampler as it is described: one global generator, seeded once."""
    random.seed(seed)

    def sample(items: tuple[Example, ...], count: int) -> list[str]:
        chosen: list[str] = []
        order: list[int] = []
        for item in items:
            if item.label not in order:
                order.append(item.label)
        for label in order:
            mine = [item.path for item in items if item.label == label]
            chosen += random.sample(mine, count) if len(mine) >= count else mine
        return chosen

    return sample(task.train, shots), sample(task.validation, min(shots, 4))


@pytest.mark.parametrize("shots", [1, 2, 4, 16])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_draws_are_those_of_the_community_s_sampler(shots: int, seed: int) -> None:
    """Classes of several sizes, met in another order than that of their labels."""
    examples = [Example(f"{i}.jpg", label) for i, label in enumerate([2, 0, 1, 2, 1] * 9 + [3] * 3)]
    validation = [replace(example, path=f"val-{example.path}") for example in examples[::2]]
    task = ImageTask("t", ("a", "b", "c", "d"), tuple(examples), tuple(validation))
    drawn = task.few_shot(shots, seed)
    train, validated = simulated(task, shots, seed)
    assert [e.path for e in drawn.train] == train
    assert [e.path for e in drawn.validation] == validated


@pytest.mark.parametrize("key", ["caltech101", "imagenet", "oxford_pets"])
def test_a_list_survives_the_disk_and_another_machine(
    key: str, public_data: Path, tmp_path: Path
) -> None:
    found = load_public(key, public_data)
    drawn = found.task.few_shot(2, seed=3)
    listed = shot_list(drawn, found.place, 2, 3)
    path = tmp_path / "list.json"
    write_shot_list(listed, path)
    content = json.loads(path.read_text())
    assert content["shots"] == 2
    assert content["seed"] == 3
    for image, label, name in content["train"]:
        assert not Path(image).is_absolute()
        assert (found.place / image).is_file()
        assert found.task.class_names[label] == name
    again = read_shot_list(path)
    assert again == listed
    assert again.digest == listed.digest
    shutil.copytree(
        public_data / found.public_set.folder, tmp_path / "elsewhere" / found.public_set.folder
    )
    other = load_public(key, tmp_path / "elsewhere")
    assert other.digest == found.digest
    replayed = replay(again, other.task, other.place)
    assert [e.label for e in replayed.train] == [e.label for e in drawn.train]
    assert shot_list(replayed, other.place, 2, 3) == listed
    assert replayed.test == other.task.test


def test_lists_of_others_need_only_the_images(public_data: Path, tmp_path: Path) -> None:
    found = load_public("dtd", public_data)
    rows = [[f"{name}/image_0000.jpg", i, name] for i, name in enumerate(found.task.class_names)]
    path = tmp_path / "theirs.json"
    path.write_text(json.dumps({"train": rows}))
    listed = read_shot_list(path)
    assert listed.seed is None
    assert len(replay(listed, found.task, found.place).train) == 3


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([["banded/image_0000.jpg", 0, "banded"]], "no image of 'blotchy'"),
        ([["banded/image_0000.jpg", 7, "banded"]], "calls label 7"),
        ([["banded/image_0000.jpg", 1, "banded"]], "calls label 1 'banded'; here it is 'blotchy'"),
        (
            [["none.jpg", i, name] for i, name in enumerate(("banded", "blotchy", "zigzagged"))],
            "there is no such file",
        ),
    ],
)
def test_lists_that_do_not_fit(
    rows: list, complaint: str, public_data: Path, tmp_path: Path
) -> None:
    found = load_public("dtd", public_data)
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"train": rows}))
    with pytest.raises(PromptotError, match=complaint):
        replay(read_shot_list(path), found.task, found.place)


def test_a_file_that_is_no_list(tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    path.write_text("{}")
    with pytest.raises(PromptotError, match="not a shot list"):
        read_shot_list(path)
