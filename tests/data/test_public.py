"""The public data sets' layouts, on folders of the same form: split files, annotations, counts."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
from made_data import make_public_data

from promptot.data.catalog.public import check_set, check_sums, find_set, load_public, public_sets
from promptot.data.catalog.public.imagenet import clip_names, imagenet_folders
from promptot.data.catalog.public.load_public import read_split
from promptot.errors import PromptotError

NAMES = {
    "imagenet": ("tench", "goldfish", "great white shark"),
    "caltech101": ("face", "motorbike", "sea horse"),
    "oxford_pets": ("abyssinian", "american bulldog", "yorkshire terrier"),
    "stanford_cars": (
        "2000 AM General Hummer SUV",
        "2012 Acura RL Sedan",
        "2012 Audi TT RS Coupe",
    ),
    "oxford_flowers": ("pink primrose", "hard-leaved pocket orchid", "canterbury bells"),
    "food101": ("apple pie", "beignets", "waffles"),
    "fgvc_aircraft": ("707-320", "727-200", "F-16A/B"),
    "sun397": ("abbey", "shop bakery", "youth hostel"),
    "dtd": ("banded", "blotchy", "zigzagged"),
    "eurosat": ("Annual Crop Land", "Forest", "Sea or Lake"),
    "ucf101": ("Apply Eye Makeup", "Archery", "Yo Yo"),
    "imagenetv2": ("tench", "goldfish", "great white shark"),
    "imagenet-sketch": ("tench", "goldfish", "great white shark"),
    "imagenet-a": ("tench", "great white shark"),
    "imagenet-r": ("goldfish", "great white shark"),
}
OFFICIAL_TEST = {"oxford_pets", "stanford_cars", "sun397", "ucf101", "fgvc_aircraft"}


@pytest.fixture(scope="module")
def annotated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same images with the original annotations and no split file."""
    return make_public_data(tmp_path_factory.mktemp("annotated"), splits=False)


def test_the_published_facts_agree_with_each_other() -> None:
    base = {
        "imagenet": 500, "caltech101": 50, "oxford_pets": 19, "stanford_cars": 98,
        "oxford_flowers": 51, "food101": 51, "fgvc_aircraft": 50, "sun397": 199, "dtd": 24,
        "eurosat": 5, "ucf101": 51,
    }  # fmt: skip
    for key, facts in public_sets().items():
        if facts.domain:
            assert set(facts.test_images) == {"all"}
        else:
            assert (facts.classes + 1) // 2 == base[key]
            assert set(facts.test_images) == {"base", "novel"}
    assert len(public_sets()) == 15


@pytest.mark.parametrize("key", NAMES)
def test_names_and_images_of_split_files_and_of_annotations(
    key: str, public_data: Path, annotated: Path
) -> None:
    split, own = load_public(key, public_data), load_public(key, annotated)
    facts = public_sets()[key]
    assert split.task.class_names == own.task.class_names == NAMES[key]
    assert split.task.template == facts.template
    assert split.published_split
    assert own.published_split == (facts.split is None)
    parts = ("train", "validation", "test")
    for found, root in ((split, public_data), (own, annotated)):
        for part in parts:
            for example in getattr(found.task, part):
                assert Path(example.path).is_file()
                assert Path(example.path).is_relative_to(root / facts.folder)
    sizes = [[len(getattr(t.task, part)) for part in parts] for t in (split, own)]
    assert sizes[0] == sizes[1]  # where the split is drawn here, its sizes are the published ones
    for part in parts:
        counts = [Counter(e.label for e in getattr(t.task, part)) for t in (split, own)]
        assert counts[0] == counts[1]
    if facts.split is None or key in OFFICIAL_TEST:
        relative = [{e.path.removeprefix(str(t.place)) for e in t.task.test} for t in (split, own)]
        assert relative[0] == relative[1]


def test_the_split_that_is_drawn_here_is_always_the_same(annotated: Path) -> None:
    for key in ("dtd", "oxford_pets"):
        first, again = load_public(key, annotated), load_public(key, annotated)
        assert first.task == again.task
        everything = [
            e.path for s in ("train", "validation", "test") for e in getattr(first.task, s)
        ]
        assert len(set(everything)) == len(everything)


def test_ignored_folders_and_those_that_are_no_class(public_data: Path) -> None:
    paths = [e.path for e in load_public("caltech101", public_data).task.train]
    assert not any("BACKGROUND" in path or "Faces_easy" in path for path in paths)
    assert len(load_public("imagenet-a", public_data).task.class_names) == 2  # README.txt is none


def test_labels_of_imagenet_are_its_sorted_folders() -> None:
    folders = imagenet_folders()
    assert len(folders) == 1000
    assert list(folders) == sorted(folders)
    names = clip_names()
    assert names["n02012849"] == "crane bird"
    assert names["n03126707"] == "construction crane"
    doubled = [n for n, count in Counter(names.values()).items() if count > 1]
    assert sorted(doubled) == ["missile", "sunglasses"]


def test_a_list_of_names_beside_the_images_goes_first(public_data: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    for folder in ("imagenet", "imagenet-rendition"):
        shutil.copytree(public_data / folder, root / folder)
    lines = [f"{folder} my {number}" for number, folder in enumerate(imagenet_folders()[:3])]
    (root / "imagenet" / "classnames.txt").write_text("\n".join(lines))
    assert load_public("imagenet", root).task.class_names == ("my 0", "my 1", "my 2")
    assert load_public("imagenet-r", root).task.class_names == ("my 1", "my 2")
    (root / "imagenet" / "classnames.txt").write_text("n01440764\n")
    with pytest.raises(PromptotError, match="has no class name"):
        load_public("imagenet", root)


def test_imagenet_validation_images_must_be_sorted_into_folders(
    public_data: Path, tmp_path: Path
) -> None:
    shutil.copytree(public_data / "imagenet", tmp_path / "imagenet")
    place = tmp_path / "imagenet" / "images" / "val"
    for image in list(place.glob("*/*")):
        image.rename(place / image.name)
    for folder in place.iterdir():
        if folder.is_dir():
            folder.rmdir()
    with pytest.raises(PromptotError, match="do not lie in class folders"):
        load_public("imagenet", tmp_path)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "not a split file"),
        ('{"train": [], "val": []}', "not a split file"),
        ('{"train": 3, "val": [], "test": []}', "not a list"),
        ('{"train": [["a.jpg", 0]], "val": [], "test": []}', "has the entry"),
        ('{"train": [["a.jpg", -1, "a"]], "val": [], "test": []}', "has the entry"),
        ('{"train": [["../a.jpg", 0, "a"]], "val": [], "test": []}', "outside"),
        ('{"train": [["/etc/passwd", 0, "a"]], "val": [], "test": []}', "outside"),
        ('{"train": [["C:\\\\a.jpg", 0, "a"]], "val": [], "test": []}', "outside"),
    ],
)
def test_damaged_and_hostile_split_files(content: str, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "split.json"
    path.write_text(content)
    with pytest.raises(PromptotError, match=complaint):
        read_split(path)


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([["a/1.jpg", 0, "a"], ["a/2.jpg", 0, "b"]], "label 0 is 'a' and 'b'"),
        ([["a/1.jpg", 0, "a"], ["c/2.jpg", 2, "c"]], "no image has the label 1"),
        ([], "no image"),
    ],
)
def test_labels_that_make_no_sense(rows: list, complaint: str, tmp_path: Path) -> None:
    (tmp_path / "dtd" / "images").mkdir(parents=True)
    split = tmp_path / "dtd" / "split_zhou_DescribableTextures.json"
    split.write_text(json.dumps({"train": rows, "val": [], "test": []}))
    with pytest.raises(PromptotError, match=complaint):
        load_public("dtd", tmp_path)


def test_what_is_missing_is_named_with_its_source(public_data: Path, tmp_path: Path) -> None:
    empty = check_set(find_set("OxfordPets"), tmp_path)
    assert empty.state == "missing"
    assert [source.place for source in empty.missing] == ["images", "split_zhou_OxfordPets.json"]
    assert all(source.url.startswith("http") for source in empty.missing)
    shutil.copytree(public_data / "oxford_pets", tmp_path / "oxford_pets")
    (tmp_path / "oxford_pets" / "split_zhou_OxfordPets.json").unlink()
    assert check_set(find_set("pets-oxford".replace("pets-oxford", "oxford_pets")), tmp_path).notes
    (tmp_path / "oxford_pets" / "annotations" / "test.txt").unlink()
    partly = check_set(find_set("oxford_pets"), tmp_path)
    assert [source.place for source in partly.missing] == ["split_zhou_OxfordPets.json"]
    aircraft = check_set(find_set("fgvc_aircraft"), tmp_path)
    assert len(aircraft.missing) == 5


def test_images_that_are_listed_and_not_there(public_data: Path, tmp_path: Path) -> None:
    shutil.copytree(public_data / "dtd", tmp_path / "dtd")
    (tmp_path / "dtd" / "images" / "banded" / "image_0003.jpg").unlink()
    shutil.rmtree(tmp_path / "dtd" / "images" / "blotchy")
    found = check_set(find_set("dtd"), tmp_path)
    assert found.state == "damaged"
    assert "11 listed images" in found.problems[0]


def test_counts_are_compared_with_the_published_ones(public_data: Path, tmp_path: Path) -> None:
    found = check_set(find_set("eurosat"), public_data)
    assert found.state == "other counts"
    assert found.differences == (
        "3 classes; published: 10.",
        "6 test images of base classes; published: 4200.",
        "3 test images of novel classes; published: 3900.",
    )
    place = tmp_path / "eurosat" / "2750"
    place.mkdir(parents=True)
    rows = []
    for label in range(10):  # as many as there should be, all of them the same image
        rows += [["a/1.jpg", label, f"class {label}"]] * (840 if label < 5 else 780)
    split = {"train": [["a/1.jpg", label, f"class {label}"] for label in range(10)], "val": []}
    (tmp_path / "eurosat" / "split_zhou_EuroSAT.json").write_text(
        json.dumps({**split, "test": rows})
    )
    (place / "a").mkdir()
    (place / "a" / "1.jpg").write_bytes(b"an image")
    assert check_set(find_set("eurosat"), tmp_path).state == "ready"


def test_checksums_of_the_user(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(b"hello")
    (tmp_path / "b c.zip").write_bytes(b"world")
    sums = tmp_path / "sums.txt"
    sums.write_text(
        f"# archives\n{hashlib.sha256(b'hello').hexdigest()}  a.zip\n"
        f"{hashlib.md5(b'world').hexdigest()} *b c.zip\n"
    )
    assert check_sums(sums, tmp_path) == []
    (tmp_path / "a.zip").write_bytes(b"hullo")
    (tmp_path / "b c.zip").unlink()
    differ, gone = check_sums(sums, tmp_path)
    assert "'a.zip' has the sha256" in differ
    assert "'b c.zip' can't be read" in gone
    sums.write_text("hello\n")
    with pytest.raises(PromptotError, match="Line 1"):
        check_sums(sums, tmp_path)


def test_a_name_that_is_none() -> None:
    with pytest.raises(PromptotError, match="Did you mean 'food101'"):
        find_set("fod101")
