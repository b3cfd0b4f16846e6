from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from promptot.data import ImageTask, load_folder
from promptot.errors import PromptotError

WriteImage = Callable[..., Path]


def refused(path: Path) -> str:
    with pytest.raises(PromptotError) as caught:
        load_folder(path)
    assert caught.value.fix
    return str(caught.value)


def relative(task: ImageTask, root: Path, split: str = "train") -> list[tuple[str, int]]:
    return [(Path(e.path).relative_to(root).as_posix(), e.label) for e in getattr(task, split)]


def test_class_folders(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("golden_retriever/b.png", "golden_retriever/a.JPG", "cat/1.webp", "Ant/x.png"):
        write_image(name)
    task = load_folder(tmp_path, template="{} drawing.")
    assert task.class_names == ("Ant", "cat", "golden retriever")
    assert relative(task, tmp_path) == [
        ("Ant/x.png", 0),
        ("cat/1.webp", 1),
        ("golden_retriever/a.JPG", 2),
        ("golden_retriever/b.png", 2),
    ]
    assert (task.validation, task.test, task.skipped) == ((), (), ())
    assert task.template == "{} drawing."
    assert task.name == tmp_path.name.replace("_", " ")


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "VAL"])
def test_split_folders(tmp_path: Path, write_image: WriteImage, validation: str) -> None:
    for name in ("train/cat/1.png", "train/dog/1.png", f"{validation}/dog/2.png", "Test/cat/3.png"):
        write_image(name)
    task = load_folder(tmp_path)
    assert task.class_names == ("cat", "dog")
    assert relative(task, tmp_path) == [("train/cat/1.png", 0), ("train/dog/1.png", 1)]
    assert relative(task, tmp_path, "validation") == [(f"{validation}/dog/2.png", 1)]
    assert relative(task, tmp_path, "test") == [("Test/cat/3.png", 0)]


def test_only_a_test_folder(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("test/cat/1.png")
    task = load_folder(tmp_path)
    assert (task.train, len(task.test), task.class_names) == ((), 1, ("cat",))


def test_classes_are_matched_across_splits_by_their_clean_names(
    tmp_path: Path, write_image: WriteImage
) -> None:
    for name in ("train/big_cat/1.png", "train/ant/1.png", "test/Big cat/2.png", "test/bee/2.png"):
        write_image(name)
    task = load_folder(tmp_path)
    assert len(task.class_names) == 3
    assert {n.casefold() for n in task.class_names} == {"ant", "bee", "big cat"}
    by_path = {Path(e.path).parent.name: e.label for e in (*task.train, *task.test)}
    assert by_path["big_cat"] == by_path["Big cat"]


def test_a_class_may_be_called_train(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("bus/1.png", "train/1.png", "train/deep/2.png"):
        write_image(name)
    task = load_folder(tmp_path)
    assert task.class_names == ("bus", "train")
    assert len(task.train) == 3


def test_an_image_beside_the_class_folders_of_a_split_changes_nothing_but_is_named(
    tmp_path: Path, write_image: WriteImage
) -> None:
    for name in (
        "train/cat/1.png",
        "train/dog/1.png",
        "train/stray.png",
        "test/cat/2.png",
        "x.png",
    ):
        write_image(name)
    task = load_folder(tmp_path)
    assert task.class_names == ("cat", "dog")
    assert (len(task.train), len(task.test)) == (2, 1)
    assert [Path(skipped.path).name for skipped in task.skipped] == ["x.png", "stray.png"]


def test_split_folders_beside_folders_without_images(
    tmp_path: Path, write_image: WriteImage
) -> None:
    for name in ("train/cat/1.png", "test/cat/1.png"):
        write_image(name)
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "labels.csv").write_text("a,b")
    assert load_folder(tmp_path).class_names == ("cat",)


@pytest.mark.parametrize("split_image", ["train/cat/1.png", "train/cat/deep/1.png"])
def test_split_folders_mixed_with_class_folders(
    tmp_path: Path, write_image: WriteImage, split_image: str
) -> None:
    for name in (split_image, "extra/1.png"):
        write_image(name)
    message = refused(tmp_path)
    assert "train" in message
    assert "extra" in message


def test_two_folders_for_one_split(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("val/cat/1.png", "valid/cat/1.png"):
        write_image(name)
    assert "both the validation split" in refused(tmp_path)


def test_what_is_hidden_or_no_image_is_passed_over(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("cat/1.png", "cat/.2.png", ".git/3.png", "__MACOSX/cat/4.png"):
        write_image(name)
    (tmp_path / "cat" / "notes.txt").write_text("hello")
    (tmp_path / "Thumbs.db").write_bytes(b"x")
    task = load_folder(tmp_path)
    assert relative(task, tmp_path) == [("cat/1.png", 0)]
    assert task.skipped == ()


def test_images_may_lie_deeper_in_a_class_folder(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("cat/b/1.png", "cat/a/deep/2.png", "cat/3.png", "cat/folder.png/4.png"):
        write_image(name)
    assert [path for path, _ in relative(load_folder(tmp_path), tmp_path)] == [
        "cat/3.png",
        "cat/a/deep/2.png",
        "cat/b/1.png",
        "cat/folder.png/4.png",
    ]


def test_images_outside_a_class_folder_are_named(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("cat/1.png", "stray.png"):
        write_image(name)
    (skipped,) = load_folder(tmp_path).skipped
    assert Path(skipped.path).name == "stray.png"
    assert "no class folder" in skipped.reason


def test_a_missing_folder_and_a_file(tmp_path: Path, write_image: WriteImage) -> None:
    assert "does not exist" in refused(tmp_path / "none")
    assert "is a file" in refused(write_image("a.png"))


def test_no_class_folders(tmp_path: Path, write_image: WriteImage) -> None:
    assert "no class folders" in refused(tmp_path)
    write_image("1.png")
    write_image("2.png")
    assert "2 images but no class folders" in refused(tmp_path)


def test_folders_without_any_image(tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    (tmp_path / "dog").mkdir()
    assert "no class folders with images" in refused(tmp_path)


def test_an_empty_class_is_named(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cat/1.png")
    (tmp_path / "big_dog").mkdir()
    (tmp_path / "big_dog" / "notes.txt").write_text("no image")
    message = refused(tmp_path)
    assert "'big dog'" in message
    assert "'cat'" not in message


def test_duplicated_class_names(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("big_dog/1.png", "big dog/2.png"):
        write_image(name)
    assert "'big dog' comes twice" in refused(tmp_path)


def test_names_that_differ_only_in_case(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("dog/1.png")
    if (tmp_path / "DOG").exists():
        pytest.skip("this file system ignores case itself")
    write_image("Dog/2.png")
    assert "comes twice" in refused(tmp_path)


def test_an_empty_class_name(tmp_path: Path, write_image: WriteImage) -> None:
    for name in ("cat/1.png", "_/2.png"):
        write_image(name)
    assert "empty class name" in refused(tmp_path)


def test_links_that_go_in_circles(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("data/cat/1.png")
    (tmp_path / "data" / "cat" / "again").symlink_to(tmp_path / "data" / "cat")
    (tmp_path / "data" / "cat" / "up").symlink_to(tmp_path / "data")
    paths = [path for path, _ in relative(load_folder(tmp_path / "data"), tmp_path / "data")]
    assert paths[0] == "cat/1.png"
    assert len(paths) < 5


def test_a_linked_class_folder_is_read(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("elsewhere/1.png")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cat").symlink_to(tmp_path / "elsewhere")
    assert len(load_folder(tmp_path / "data").train) == 1


def test_unicode_names(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("cafe\u0301_crème/ü.png")  # a decomposed é, as macOS writes it
    assert load_folder(tmp_path).class_names == ("café crème",)


def test_order_does_not_depend_on_the_file_system(
    tmp_path: Path, write_image: WriteImage, monkeypatch: pytest.MonkeyPatch
) -> None:
    for label in "bac":
        for index in (2, 10, 1):
            write_image(f"{label}/{index}.png")
    first = load_folder(tmp_path)
    listing = Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda path: sorted(listing(path), reverse=True))
    assert load_folder(tmp_path) == first


def test_the_current_folder_has_a_name(tmp_path: Path, write_image: WriteImage) -> None:
    write_image("pets/cat/1.png")
    before = Path.cwd()
    os.chdir(tmp_path / "pets")
    try:
        assert load_folder(".").name == "pets"
    finally:
        os.chdir(before)
