"""One set of images in every format: the same classes, splits, pixels and identities come out."""

from __future__ import annotations

import csv
import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from promptot.data import ImageLoader, ImageTask, load_task

Build = Callable[[ImageTask, Path], Any]
SPLITS = ("train", "test")


def rows(task: ImageTask) -> list[dict[str, Any]]:
    return [
        {"path": example.path, "label": task.class_names[example.label], "split": split}
        for split in SPLITS
        for example in getattr(task, split)
    ]


def write_csv(task: ImageTask, place: Path) -> str:
    with (place / "pets.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "split"])
        writer.writeheader()
        writer.writerows(rows(task))
    return str(place / "pets.csv")


def write_jsonl(task: ImageTask, place: Path) -> str:
    lines = [json.dumps(row) for row in rows(task)]
    (place / "pets.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return str(place / "pets.jsonl")


def write_zip(task: ImageTask, place: Path) -> str:
    return shutil.make_archive(str(place / "packed"), "zip", place, "pets")


def write_tar(task: ImageTask, place: Path) -> str:
    return shutil.make_archive(str(place / "packed"), "tar", place, "pets")


def write_parquet(task: ImageTask, place: Path) -> str:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    table = rows(task)
    for row in table:
        row["image"] = {"bytes": Path(row.pop("path")).read_bytes(), "path": None}
    parquet.write_table(arrow.Table.from_pylist(table), place / "p.parquet", row_group_size=3)
    return str(place / "p.parquet")


def make_dataset_dict(task: ImageTask) -> Any:
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    names = datasets.ClassLabel(names=list(task.class_names))
    features = datasets.Features({"image": datasets.Image(), "label": names})
    return datasets.DatasetDict(
        {
            split: datasets.Dataset.from_dict(
                {
                    "image": [
                        {"bytes": Path(e.path).read_bytes(), "path": None}
                        for e in getattr(task, split)
                    ],
                    "label": [e.label for e in getattr(task, split)],
                },
                features=features,
            )
            for split in SPLITS
        }
    )


def hugging_face(task: ImageTask, place: Path) -> Any:
    return make_dataset_dict(task)


def save_hugging_face(task: ImageTask, place: Path) -> str:
    make_dataset_dict(task).save_to_disk(str(place / "saved"))
    return str(place / "saved")


def write_hub_folder(task: ImageTask, place: Path) -> str:
    (place / "hub" / "data").mkdir(parents=True)
    for split, part in make_dataset_dict(task).items():
        part.to_parquet(place / "hub" / "data" / f"{split}-00000-of-00001.parquet")
    return str(place / "hub")


def write_shards(task: ImageTask, place: Path) -> str:
    (place / "shards").mkdir()
    for split in SPLITS:
        with tarfile.open(place / "shards" / f"{split}-000.tar", "w") as file:
            for number, example in enumerate(getattr(task, split)):
                for suffix, data in (
                    ("png", Path(example.path).read_bytes()),
                    ("cls", str(example.label).encode()),
                ):
                    info = tarfile.TarInfo(f"{number:05}.{suffix}")
                    info.size = len(data)
                    file.addfile(info, io.BytesIO(data))
    (place / "shards" / "classnames.txt").write_text("cat\nred fox\n")
    return str(place / "shards")


def torchvision_folders(task: ImageTask, place: Path) -> Any:
    from torchvision.datasets import ImageFolder

    return {split: ImageFolder(place / "pets" / split) for split in SPLITS}


def described(task: ImageTask, place: Path) -> str:
    (place / "task.yaml").write_text("data: {train: pets/train, test: pets/test}\n")
    return str(place / "task.yaml")


def data_frame(task: ImageTask, place: Path) -> Any:
    return pytest.importorskip("pandas").DataFrame(rows(task))


def as_folder(task: ImageTask, place: Path) -> Path:
    return place / "pets"


ON_DISK = [write_csv, write_jsonl, write_zip, write_tar, write_parquet, save_hugging_face]
ON_DISK += [write_hub_folder, write_shards, described, as_folder]
IN_MEMORY = [hugging_face, torchvision_folders, data_frame]


@pytest.mark.parametrize("build", [*ON_DISK, *IN_MEMORY], ids=lambda f: f.__name__)
def test_the_same_task_comes_out(
    build: Build, pets: Path, tmp_path: Path, content: Callable[[ImageTask], object]
) -> None:
    plain = load_task(pets)
    task = load_task(build(plain, tmp_path))
    assert task.class_names == ("cat", "red fox")
    assert content(task) == content(plain)
    assert len({example.path for example in task.examples}) == 10
    by_hash = {example.hash(): example for example in plain.examples}
    for example in pickle.loads(pickle.dumps(task)).examples:  # as another process gets it
        same = by_hash[example.hash()].load()
        assert np.array_equal(np.asarray(example.load()), np.asarray(same))


@pytest.mark.parametrize("build", [write_zip, write_shards, write_parquet, hugging_face])
def test_worker_processes_read_the_same_images(build: Build, pets: Path, tmp_path: Path) -> None:
    task = load_task(build(load_task(pets), tmp_path))

    def load(workers: int) -> list[Tensor]:
        loader = ImageLoader(task.train, pil_to_tensor, batch_size=2, workers=workers)
        return [batch.images for batch in loader]

    here, there = load(0), load(2)
    assert len(here) == 3
    assert all(bool((a == b).all()) for a, b in zip(here, there, strict=True))


def test_arrays_and_pictures_in_memory(pets: Path) -> None:
    plain = load_task(pets)
    arrays = np.stack([np.asarray(example.load()) for example in plain.train])
    labels = [plain.class_names[example.label] for example in plain.train]
    pictures = [Image.fromarray(array) for array in arrays]
    loaded = [load_task((images, labels)) for images in (arrays, pictures, arrays / 255.0)]
    for task in loaded:
        assert task.class_names == plain.class_names
        for example, array in zip(task.train, arrays, strict=True):
            assert np.array_equal(np.asarray(example.load()), array)
    assert len({tuple(e.hash() for e in task.train) for task in loaded}) == 1
    assert loaded[0].train[2].path == "images[2]"


def test_a_data_set_without_labels_of_its_own() -> None:
    class Squares:
        classes = ("dark", "bright")

        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Image.Image, int]:
            if index == 3:
                return Image.new("RGB", (8, 8)), 1
            return Image.new("L", (8, 8), 40 * index), index % 2

    task = load_task(Squares())
    assert (task.name, task.class_names) == ("Squares", ("dark", "bright"))
    assert [example.label for example in task.train] == [0, 1, 0, 1]
    assert task.train[1].load().getpixel((0, 0)) == (40, 40, 40)


def test_a_subset_of_a_data_set(pets: Path) -> None:
    from torch.utils.data import Subset
    from torchvision.datasets import ImageFolder

    task = load_task(Subset(ImageFolder(pets / "train"), [4, 0]))
    assert [(Path(e.path).name, e.label) for e in task.train] == [("1.png", 1), ("0.png", 0)]
    assert task.class_names == ("cat", "red fox")


def test_an_image_that_its_data_set_refuses_is_named() -> None:
    from promptot.data import find_unreadable

    class Broken:
        targets = (0, 1)

        def __len__(self) -> int:
            return 2

        def __getitem__(self, index: int) -> Any:
            if index:
                raise RuntimeError("the server is gone")
            return np.full((8, 8), -2.0), 0

    task = load_task(Broken(), name="cloud")
    found = {item.path: item.reason for item in find_unreadable(task.train)}
    assert "from 0 to 1" in found["cloud[0]"]
    assert "the server is gone" in found["cloud[1]"]
