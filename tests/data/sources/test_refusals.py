"""What can't be read is refused with what to do about it; odd but clear input is read."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from promptot.data import UnreadableImage, load_image, load_task
from promptot.errors import PromptotError


def refused(source: Any, **options: Any) -> str:
    with pytest.raises(PromptotError) as caught:
        load_task(source, **options)
    assert caught.value.fix
    return str(caught.value)


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def png() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8), (200, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return path


def test_what_is_no_source() -> None:
    assert "from int" in refused(3)
    assert "does not exist" in refused("no/such/place")
    assert "no such" in refused("bundled:nothing").lower() or "No group" in refused("bundled:x")


@pytest.mark.parametrize("name", ["a.tar.gz", "a.7z"])
def test_archives_that_can_t_be_read_in_place(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"x")
    assert "Unpack it" in refused(tmp_path / name)


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.parquet", "a.arrow"])
def test_damaged_files(tmp_path: Path, name: str) -> None:
    if Path(name).suffix in (".parquet", ".arrow"):
        pytest.importorskip("pyarrow")
    (tmp_path / name).write_bytes(b"not what it seems" * 40)
    assert "can't be read" in refused(tmp_path / name)


def test_columns_are_found_by_their_usual_names_or_told(tmp_path: Path) -> None:
    text = "File,Species\na.png,cat\nb.png,dog\n"
    path = write(tmp_path / "t.csv", text)
    assert "no column 'label'" in refused(path)
    task = load_task(path, columns={"label": "species"})
    assert task.class_names == ("cat", "dog")
    assert task.train[0].path == str(tmp_path / "a.png")
    assert "no column 'genus'" in refused(path, columns={"label": "genus"})
    assert "kind of column 'species'" in refused(path, columns={"species": "label"})


def test_semicolons_quotes_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", '\ufeffpath;label\n"a;1.png";"hot dog, large"\n')
    task = load_task(path)
    assert task.class_names == ("hot dog, large",)
    assert Path(task.train[0].path).name == "a;1.png"


def test_rows_that_are_damaged_are_told_by_their_line(tmp_path: Path) -> None:
    assert "Row 3" in refused(write(tmp_path / "t.csv", "path,label\na.png,x\nb.png,y,z\n"))
    assert "Line 2" in refused(write(tmp_path / "t.jsonl", '{"path":"a","label":"b"}\n{oops\n'))
    assert "no JSON object" in refused(write(tmp_path / "u.jsonl", "[1]\n"))
    (tmp_path / "v.csv").write_bytes(b"path,label\n\xff\xfe,x\n")
    assert "UTF-8" in refused(tmp_path / "v.csv")


def test_splits_domains_and_labels_that_are_missing(tmp_path: Path) -> None:
    lines = [
        {"path": "a.png", "label": "x", "split": "Training", "domain": "photo"},
        {"path": "b.png", "label": "y", "split": "dev", "domain": "sketch"},
        {"path": "c.png", "label": "y", "split": "", "domain": "photo"},
        {"path": "d.png", "label": None, "split": "test"},
    ]
    path = write(tmp_path / "t.jsonl", "\n".join(map(json.dumps, lines)))
    task = load_task(path)
    assert (len(task.train), len(task.validation), len(task.test)) == (2, 1, 0)
    assert task.domains == ("photo", "sketch")
    assert len(task.in_domain("photo").examples) == 2
    assert [(Path(s.path).name, s.reason) for s in task.skipped] == [("d.png", "it has no label")]
    lines[0]["split"] = "extra"
    assert "the split 'extra'" in refused(
        write(tmp_path / "u.jsonl", "\n".join(map(json.dumps, lines)))
    )


def test_numbers_are_ordered_as_numbers(tmp_path: Path) -> None:
    rows = "".join(f"{label}.png,{label}\n" for label in (10, 9, 2))
    assert load_task(write(tmp_path / "t.csv", f"path,label\n{rows}")).class_names == (
        "2",
        "9",
        "10",
    )


def test_label_numbers_beyond_the_names(tmp_path: Path) -> None:
    write_tar(tmp_path / "s.tar", {"a.png": png(), "a.cls": b"2"})
    write(tmp_path / "classnames.txt", "cat\ndog\n")
    assert "label 2, but only 2 class names" in refused(tmp_path / "s.tar")


@pytest.mark.parametrize(
    ("suffix", "label"),
    [("cls", b"dog"), ("txt", b" dog\n"), ("json", b'{"width": 3, "label": "dog"}')],
)
def test_labels_of_shards(tmp_path: Path, suffix: str, label: bytes) -> None:
    members = {"a/1.png": png(), f"a/1.{suffix}": label, "a/2.png": png(), "b.txt": b"note"}
    task = load_task(write_tar(tmp_path / "train-0.tar", members))
    assert task.class_names == ("dog",)
    assert [Path(item.path).name for item in task.skipped] == ["2.png"]


def test_shards_by_pattern(tmp_path: Path) -> None:
    for number in range(3):
        write_tar(tmp_path / f"s-{number:02}.tar", {"a.png": png(), "a.cls": b"dog"})
    for pattern, count in (("s-{00..01}.tar", 2), ("s-*.tar", 3)):
        assert len(load_task(tmp_path / pattern).train) == count
    assert "No shard matches" in refused(tmp_path / "t-{00..01}.tar")
    assert "too many" in refused(tmp_path / "t-{0..99999999}.tar")


def test_members_of_a_tar_that_are_no_plain_files_are_never_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.png", "secret")
    with tarfile.open(tmp_path / "s.tar", "w") as file:
        for name, kind in (("cat/link.png", tarfile.SYMTYPE), ("cat/hard.png", tarfile.LNKTYPE)):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = kind, str(secret)
            file.addfile(info)
        for name in ("cat/real.png", "../up.png", "/root.png"):
            info = tarfile.TarInfo(name)
            info.size = len(png())
            file.addfile(info, io.BytesIO(png()))
    task = load_task(tmp_path / "s.tar")
    assert [example.path for example in task.examples] == [f"{tmp_path / 's.tar'}::cat/real.png"]
    with pytest.raises(UnreadableImage, match="no such member"):
        load_image(f"{tmp_path / 's.tar'}::cat/link.png")


def test_a_zip_of_a_mac_and_one_folder_around_the_classes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as file:
        for name in ("photos/cat/1.png", "photos/dog/2.png", "__MACOSX/photos/cat/._1.png"):
            file.writestr(name, png())
        file.writestr("photos/.DS_Store", b"x")
    task = load_task(tmp_path / "p.zip")
    assert task.class_names == ("cat", "dog")
    assert len(task.train) == 2


def test_a_cut_tar_names_the_image(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "s.tar", {"a.png": png(), "a.cls": b"x"})
    place = load_task(path).train[0].path
    path.write_bytes(path.read_bytes()[:520])
    with pytest.raises(UnreadableImage):
        load_image(place)


def test_cells_that_do_not_exist(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "t.parquet"
    parquet.write_table(arrow.table({"image": [png(), b""], "label": ["a", "b"]}), path)
    assert load_image(f"{path}::image::0").size == (8, 8)
    for cell, reason in (
        ("image::2", "no such cell"),
        ("picture::0", "no such cell"),
        ("image", "FILE::COLUMN::ROW"),
        ("label::0", "no image"),
        ("image::1", "empty"),
    ):
        with pytest.raises(UnreadableImage, match=reason):
            load_image(f"{path}::{cell}")


def test_a_column_that_holds_no_images(tmp_path: Path) -> None:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(arrow.table({"image": [1, 2], "label": ["a", "b"]}), tmp_path / "t.parquet")
    assert "holds no images" in refused(tmp_path / "t.parquet")


def test_images_and_labels_that_do_not_fit() -> None:
    assert "2 images and 1 labels" in refused((np.zeros((2, 8, 8, 3), np.uint8), ["a"]))
    assert "no batch" in refused((np.zeros((8, 8)), range(8)))
    assert "Put a single image into a list" in refused((Image.new("RGB", (8, 8)), ["a"]))
    assert "no labelled image" in refused(([], []))


def test_splits_given_apart(tmp_path: Path) -> None:
    one = (np.zeros((2, 8, 8, 3), np.uint8), ["a", "b"])
    two = (np.zeros((1, 8, 8, 3), np.uint8), ["B"])
    task = load_task({"train": one, "val": two})
    assert task.class_names == ("a", "b")
    assert [example.label for example in task.validation] == [1]
    assert "no split" in refused({"extra": one})
    assert "comes twice" in refused({"val": one, "dev": two})


def test_a_data_set_that_gives_no_pairs() -> None:
    assert "not (image, label)" in refused([1, 2, 3])


def test_descriptions(tmp_path: Path) -> None:
    write(tmp_path / "t.csv", "path,label,domain\na.png,n1,x\nb.png,n2,y\n")
    path = write(
        tmp_path / "d.yaml",
        'data: t.csv\ntemplate: "{} texture."\nnames: {n1: [cat, kitty]}\ndomain: x\n',
    )
    task = load_task(path)
    assert (task.class_names, task.synonyms) == (("cat", "n2"), {"cat": ("kitty",)})
    assert (task.template, task.name) == ("{} texture.", "d")
    assert len(task.examples) == 1
    assert "'data' says" in refused(write(tmp_path / "e.yaml", "dta: t.csv\n"))
    assert "no domain 'z'" in refused(write(tmp_path / "f.yaml", "data: t.csv\ndomain: z\n"))
    assert "names itself" in refused(write(tmp_path / "g.yaml", "data: g.yaml\n"))
    assert "'{}' exactly once" in refused(write(tmp_path / "h.yaml", "data: t.csv\ntemplate: x\n"))
