from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest
from PIL import Image

from promptot.data import (
    ImageTask,
    find_unreadable,
    list_groups,
    list_styles,
    load_bundled,
    load_bundled_others,
    load_image,
)
from promptot.data.catalog.drawings import load_bundled_domains
from promptot.data.class_names import check_class_names
from promptot.errors import PromptotError

STYLES = {
    "noto": "pretraining",
    "twemoji": "train",
    "fxemoji": "train",
    "emojione-v1": "validation",
    "streamline": "test",
}
GROUPS = {"animals": ["dog", "ant", "cat"], "food": ["red apple", "bread"], "unseen": ["owl"]}


def write_drawings(folder: Path, left_out: Sequence[tuple[str, str]] = ()) -> Path:
    """Drawings like the bundled ones: every style draws every concept but those `left_out`."""
    folder.mkdir()
    with (
        (folder / "index.csv").open("w", newline="", encoding="utf-8") as table,
        zipfile.ZipFile(folder / "images.zip", "w") as archive,
    ):
        writer = csv.writer(table)
        writer.writerow(["style", "group", "subgroup", "name", "split", "member"])
        for red, (style, split) in enumerate(STYLES.items()):
            for group, names in GROUPS.items():
                for green, name in enumerate(names):
                    if (style, name) in left_out:
                        continue
                    member = f"{style}/{group}/{name.replace(' ', '-')}.png"
                    buffer = io.BytesIO()
                    Image.new("RGB", (8, 8), (red, green, 0)).save(buffer, "PNG")
                    archive.writestr(member, buffer.getvalue())
                    writer.writerow([style, group, "sub", name, split, member])
    return folder


@pytest.fixture
def drawings(tmp_path: Path) -> Path:
    return write_drawings(tmp_path / "drawings")


def test_groups_and_styles(drawings: Path) -> None:
    assert list_groups(drawings) == ["animals", "food", "unseen"]
    assert list_styles("train", drawings) == ["fxemoji", "twemoji"]
    assert list_styles("test", drawings) == ["streamline"]
    assert "noto" not in list_styles(drawings=drawings)


def test_a_group_is_a_task_split_by_style(drawings: Path) -> None:
    task = load_bundled("animals", drawings=drawings)
    assert task.name == "animals"
    assert task.class_names == ("ant", "cat", "dog")
    assert (len(task.train), len(task.validation), len(task.test)) == (6, 3, 3)
    for split, styles in (
        (task.train, {"twemoji", "fxemoji"}),
        (task.validation, {"emojione-v1"}),
        (task.test, {"streamline"}),
    ):
        for example in split:
            style, group, file = example.path.partition("::")[2].split("/")
            assert style in styles
            assert group == "animals"
            assert file == f"{task.class_names[example.label]}.png"
    dog = next(e for e in task.test if e.label == 2)
    assert load_image(dog.path).getpixel((0, 0)) == (4, 0, 0)


def test_the_others_are_every_other_group(drawings: Path) -> None:
    task = load_bundled_others("animals", drawings=drawings)
    assert task.class_names == ("bread", "red apple")
    assert {e.path.split("/")[-1] for e in task.test} == {"bread.png", "red-apple.png"}


def test_styles_can_be_chosen(drawings: Path) -> None:
    task = load_bundled("food", styles=["twemoji", "streamline"], drawings=drawings)
    assert (len(task.train), len(task.validation), len(task.test)) == (2, 0, 2)
    with pytest.raises(PromptotError, match="every needed split"):
        load_bundled("food", styles=["streamline"], drawings=drawings)


def test_concepts_that_miss_a_needed_split_are_no_classes(tmp_path: Path) -> None:
    left_out = [("streamline", "cat"), ("twemoji", "ant"), ("fxemoji", "ant"), ("twemoji", "dog")]
    left_out += [("twemoji", "bread"), ("fxemoji", "bread")]
    drawings = write_drawings(tmp_path / "drawings", left_out)
    task = load_bundled("animals", drawings=drawings)
    assert task.class_names == ("dog",)
    assert (len(task.train), len(task.test)) == (1, 1)
    assert load_bundled_others("animals", drawings=drawings).class_names == ("bread", "red apple")


def drawn(task: ImageTask, split: str) -> set[str]:
    """ "<style> <name>" of every drawing of a split, the name by its label."""
    return {
        f"{example.path.partition('::')[2].split('/')[0]} {task.class_names[example.label]}"
        for example in getattr(task, split)
    }


def test_styles_as_domains(tmp_path: Path) -> None:
    left_out = [("twemoji", "ant"), ("streamline", "dog"), ("emojione-v1", "cat")]
    drawings = write_drawings(tmp_path / "drawings", left_out)
    targets = ("fxemoji", "emojione-v1", "streamline")
    source, tasks = load_bundled_domains("animals", ["twemoji"], targets, drawings)
    assert source.class_names == ("cat",)  # no training drawing of ant, no test drawing of dog
    assert drawn(source, "train") == {"twemoji cat"}
    assert source.test == ()
    assert list(tasks) == ["fxemoji", "streamline"]  # the third draws no cat
    assert drawn(tasks["fxemoji"], "test") == {"fxemoji cat"}

    drawings = write_drawings(tmp_path / "more", [("emojione-v1", "cat")])
    source, tasks = load_bundled_domains("animals", ["twemoji"], targets, drawings)
    assert drawn(source, "train") == {"twemoji ant", "twemoji cat", "twemoji dog"}
    assert drawn(source, "validation") == {"emojione-v1 ant", "emojione-v1 dog"}
    assert tasks["emojione-v1"].class_names == ("ant", "dog")  # only those that it draws
    assert drawn(tasks["emojione-v1"], "test") == {"emojione-v1 ant", "emojione-v1 dog"}
    assert not tasks["fxemoji"].train


def test_domains_that_can_not_be(drawings: Path) -> None:
    with pytest.raises(PromptotError, match="both a source and a target"):
        load_bundled_domains("animals", ["twemoji"], ["fxemoji", "twemoji"], drawings)
    with pytest.raises(PromptotError, match="Did you mean 'fxemoji'"):
        load_bundled_domains("animals", ["twemoji"], ["fxemojy"], drawings)
    with pytest.raises(PromptotError, match="drawn in the styles"):
        load_bundled_domains("animals", [], ["twemoji"], drawings)


@pytest.mark.parametrize("group", list_groups())
def test_the_shipped_drawings(group: str) -> None:
    task, others = load_bundled(group), load_bundled_others(group)
    check_class_names(task.class_names)
    check_class_names(others.class_names)
    assert not set(task.class_names) & set(others.class_names)
    assert len(task.class_names) >= 20
    assert {e.label for e in task.train} == {e.label for e in task.test}
    styles = [
        {e.path.partition("::")[2].split("/")[0] for e in split}
        for split in (task.train, task.validation, task.test)
    ]
    assert all(styles)
    assert not styles[0] & styles[1]
    assert not styles[2] & (styles[0] | styles[1])
    assert find_unreadable(task.test[:10]) == []


def test_unknown_names_point_to_the_nearest(drawings: Path) -> None:
    with pytest.raises(PromptotError, match="Did you mean 'animals'"):
        load_bundled("animal", drawings=drawings)
    with pytest.raises(PromptotError, match="Did you mean 'twemoji'"):
        load_bundled("animals", styles=["twemojy"], drawings=drawings)


def test_missing_or_foreign_drawings(tmp_path: Path) -> None:
    with pytest.raises(PromptotError, match="can't be read"):
        list_groups(tmp_path / "none")
    (tmp_path / "index.csv").write_text("a,b\n1,2\n")
    with pytest.raises(PromptotError, match="lacks columns"):
        list_groups(tmp_path)
