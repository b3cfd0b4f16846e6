"""An image is known by the same thing wherever it lies: replaced, it is another one."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptot.backbones import Backbone
from promptot.data import Example, ImageTask, load_task
from promptot.data.images.fingerprint import ImageIdentities
from promptot.experiments.cells import fingerprint
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.scenarios import Scenario

Pictures = dict[str, list[np.ndarray]]
Build = Callable[[Path, Pictures], Any]
LABELS = ("cat", "dog")


def pictures(seed: int, each: int = 3) -> Pictures:
    """Noise; as BMP files all are of one size, whatever they show."""
    draw = np.random.default_rng(seed)
    return {n: [draw.integers(0, 256, (20, 20, 3), np.uint8) for _ in range(each)] for n in LABELS}


def bmp(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "BMP")
    return buffer.getvalue()


def members(shown: Pictures) -> list[tuple[str, str, bytes]]:
    return [
        (f"{label}/{i}.bmp", label, bmp(p))
        for label, many in shown.items()
        for i, p in enumerate(many)
    ]


def folder(place: Path, shown: Pictures) -> Path:
    for name, _, content in members(shown):
        (place / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (place / "photos" / name).write_bytes(content)
    return place / "photos"


def linked_folder(place: Path, shown: Pictures) -> Path:
    """Links to the files, as data stores make them."""
    real = folder(place / "store", shown)
    for file in real.rglob("*.bmp"):
        link = place / "photos" / file.relative_to(real)
        link.parent.mkdir(parents=True, exist_ok=True)
        if not link.is_symlink():
            link.symlink_to(file)
    return place / "photos"


def zipped(place: Path, shown: Pictures) -> Path:
    with zipfile.ZipFile(place / "photos.zip", "w") as archive:
        for name, _, content in members(shown):
            archive.writestr(zipfile.ZipInfo(name), content)
    return place / "photos.zip"


def tarred(place: Path, shown: Pictures) -> Path:
    with tarfile.open(place / "photos.tar", "w") as archive:
        for name, _, content in members(shown):
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return place / "photos.tar"


def shards(place: Path, shown: Pictures) -> str:
    with tarfile.open(place / "train-000.tar", "w") as archive:
        for number, (_, label, content) in enumerate(members(shown)):
            for suffix, data in (("bmp", content), ("cls", label.encode())):
                entry = tarfile.TarInfo(f"{number:04}.{suffix}")
                entry.size = len(data)
                archive.addfile(entry, io.BytesIO(data))
    return str(place / "train-{000..000}.tar")


def table_of(shown: Pictures) -> Any:
    arrow = pytest.importorskip("pyarrow")
    rows = members(shown)
    images = [{"bytes": content, "path": None} for _, _, content in rows]
    return arrow.table({"image": images, "label": [label for _, label, _ in rows]})


def parquet(place: Path, shown: Pictures) -> Path:
    from pyarrow import parquet as files

    table = table_of(shown)
    files.write_table(
        table, place / "photos.parquet", compression="NONE", use_dictionary=False,
        write_statistics=False,
    )  # fmt: skip
    return place / "photos.parquet"


def arrow_stream(place: Path, shown: Pictures) -> Path:
    import pyarrow

    table = table_of(shown)
    with pyarrow.OSFile(str(place / "photos.arrow"), "wb") as file, pyarrow.ipc.new_stream(
        file, table.schema
    ) as writer:  # fmt: skip
        writer.write_table(table)
    return place / "photos.arrow"


def csv_of_paths(place: Path, shown: Pictures) -> Path:
    folder(place, shown)
    with (place / "table.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(("path", "label"))
        rows.writerows((f"photos/{name}", label) for name, label, _ in members(shown))
    return place / "table.csv"


def json_lines_of_paths(place: Path, shown: Pictures) -> Path:
    folder(place, shown)
    lines = [json.dumps({"path": f"photos/{n}", "label": label}) for n, label, _ in members(shown)]
    (place / "table.jsonl").write_text("\n".join(lines))
    return place / "table.jsonl"


def parquet_of_paths(place: Path, shown: Pictures) -> Path:
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet as files

    folder(place, shown)
    rows = members(shown)
    columns = {"path": [f"photos/{n}" for n, _, _ in rows], "label": [la for _, la, _ in rows]}
    files.write_table(arrow.table(columns), place / "paths.parquet")
    return place / "paths.parquet"


def hugging_face(place: Path, shown: Pictures) -> Any:
    datasets = pytest.importorskip("datasets")
    rows = members(shown)
    columns = {
        "image": [{"bytes": content, "path": None} for _, _, content in rows],
        "label": [label for _, label, _ in rows],
    }
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("string")})
    return datasets.Dataset.from_dict(columns, features=features)


def saved_hugging_face(place: Path, shown: Pictures) -> Path:
    made = place / "made"
    hugging_face(place, shown).save_to_disk(str(made))
    (place / "saved").mkdir(exist_ok=True)
    for file in made.iterdir():
        written = (place / "saved" / file.name).write_bytes  # in place, as other tools write
        written(file.read_bytes())
    shutil.rmtree(made)
    return place / "saved"


def flat(shown: Pictures) -> tuple[list[np.ndarray], list[str]]:
    pairs = [(pixels, label) for label, many in shown.items() for pixels in many]
    return [pixels for pixels, _ in pairs], [label for _, label in pairs]


def batch_of_arrays(place: Path, shown: Pictures) -> Any:
    images, labels = flat(shown)
    return np.stack(images), labels


def pillow_images(place: Path, shown: Pictures) -> Any:
    images, labels = flat(shown)
    return [Image.fromarray(pixels) for pixels in images], labels


def frame(place: Path, shown: Pictures) -> Any:
    pandas = pytest.importorskip("pandas")
    images, labels = flat(shown)
    return pandas.DataFrame({"image": list(images), "label": labels})


def torch_data_set(place: Path, shown: Pictures) -> Any:
    images, labels = flat(shown)

    class Pairs(torch.utils.data.Dataset):
        classes = LABELS

        def __len__(self) -> int:
            return len(images)

        def __getitem__(self, index: int) -> tuple[Any, int]:
            return Image.fromarray(images[index]), LABELS.index(labels[index])

    return Pairs()


FILES: list[Build] = [
    folder, linked_folder, zipped, tarred, shards, parquet, arrow_stream, csv_of_paths,
    json_lines_of_paths, parquet_of_paths, saved_hugging_face,
]  # fmt: skip
MEMORY: list[Build] = [hugging_face, batch_of_arrays, pillow_images, frame, torch_data_set]


def names(build: Build) -> str:
    return build.__name__


class Features:
    """The frozen features of a task's images, kept in a folder; counts what is computed."""

    def __init__(self, cache: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cache, self.backbone, self.computed = cache, backbone, 0
        encode = backbone.encode_image

        def counted(images: torch.Tensor) -> torch.Tensor:
            self.computed += len(images)
            return encode(images)

        monkeypatch.setattr(backbone, "encode_image", counted)

    def of(self, task: ImageTask) -> torch.Tensor:
        """As a new process would ask for them."""
        images = ImageFeatures(self.cache, self.backbone, tokens=False)
        batches = images.batches(task.train, frozen=True)
        return torch.cat([batch.teacher for batch in batches])


@pytest.fixture
def features(tmp_path: Path, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Features:
    return Features(tmp_path / "cache", backbone, monkeypatch)


def expected(task: ImageTask, backbone: Backbone, shown: Pictures) -> torch.Tensor:
    """Features of what the pictures show now, computed from the arrays."""
    transform = backbone.preprocess.test()
    images = torch.stack([transform(Image.fromarray(pixels)) for pixels in flat(shown)[0]])
    with torch.no_grad():
        return type(backbone).encode_image(backbone, images)


def stamp(place: Path) -> dict[Path, tuple[int, int]]:
    """Size and time of every file."""
    return {
        file: (file.stat().st_size, file.stat().st_mtime_ns)
        for file in sorted(place.rglob("*"))
        if file.is_file()
    }


@pytest.mark.parametrize("build", [*FILES, *MEMORY], ids=names)
def test_unchanged_images_are_not_computed_again_and_replaced_ones_are(
    build: Build, tmp_path: Path, backbone: Backbone, features: Features
) -> None:
    """Replaced by others of the same name, size and time, where there is a file."""
    place = tmp_path / "data"
    place.mkdir()
    first, second = pictures(1), pictures(2)
    task = load_task(build(place, first))
    torch.testing.assert_close(features.of(task), expected(task, backbone, first))
    assert features.computed == 6
    for _ in range(2):
        again = build(place, first) if build in MEMORY else None
        features.of(load_task(again) if again is not None else load_task_again(build, place))
    assert features.computed == 6

    before = stamp(place)
    time.sleep(0.02)  # more than the grain of the system's clock
    source = build(place, second)
    for file, (size, modified) in before.items():
        if file.suffix not in (".json",):
            assert file.stat().st_size == size, file
        os.utime(file, ns=(modified, modified))
    found = features.of(load_task(source))
    assert features.computed == 12
    torch.testing.assert_close(found, expected(task, backbone, second))


def load_task_again(build: Build, place: Path) -> ImageTask:
    """The same files, listed anew."""
    sources = {
        "folder": "photos", "linked_folder": "photos", "zipped": "photos.zip",
        "tarred": "photos.tar", "shards": "train-{000..000}.tar", "parquet": "photos.parquet",
        "arrow_stream": "photos.arrow", "csv_of_paths": "table.csv",
        "json_lines_of_paths": "table.jsonl", "parquet_of_paths": "paths.parquet",
        "saved_hugging_face": "saved",
    }  # fmt: skip
    return load_task(str(place / sources[build.__name__]))


@pytest.mark.parametrize("build", FILES, ids=names)
def test_a_file_that_is_moved_into_the_place_of_another_is_another(
    build: Build, tmp_path: Path, backbone: Backbone, features: Features
) -> None:
    """As downloads do: written beside, and renamed; size and time are those of the old one."""
    place, beside = tmp_path / "data", tmp_path / "beside"
    place.mkdir()
    beside.mkdir()
    build(place, pictures(1))
    features.of(load_task_again(build, place))
    time.sleep(0.02)
    build(beside, pictures(2))
    for file, (_, modified) in stamp(place).items():
        new = beside / file.relative_to(place)
        if file.suffix == ".json" or file.is_symlink() or not new.exists():
            continue
        os.utime(new, ns=(modified, modified))
        new.replace(file)
    found = features.of(load_task_again(build, place))
    assert features.computed == 12
    torch.testing.assert_close(
        found, expected(load_task_again(build, place), backbone, pictures(2))
    )


def scenario_of(source: Any) -> Scenario:
    task = load_task(source)
    return Scenario(
        "photos", task, "all", {"all": ImageTask("x", task.class_names, test=task.train)}, 1
    )


@pytest.mark.parametrize("build", [*FILES, *MEMORY], ids=names)
def test_cells_tell_replaced_images_too(build: Build, tmp_path: Path) -> None:
    """Of the same name and size; and in the same process, where nothing is remembered of them."""
    place = tmp_path / "data"
    place.mkdir()
    before = fingerprint(scenario_of(build(place, pictures(1))))
    if build in MEMORY:
        assert fingerprint(scenario_of(build(place, pictures(1)))) == before
    time.sleep(0.02)
    assert fingerprint(scenario_of(build(place, pictures(2)))) != before


@pytest.mark.parametrize("build", FILES, ids=names)
def test_cells_don_t_mind_where_the_data_lie(build: Build, tmp_path: Path) -> None:
    place = tmp_path / "data"
    place.mkdir()
    build(place, pictures(1))
    moved = tmp_path / "elsewhere" / "moved"
    shutil.copytree(place, moved)  # links become files, and times stay
    before = scenario_of_built(build, place)
    assert fingerprint(scenario_of_built(build, moved)) == fingerprint(before)


def scenario_of_built(build: Build, place: Path) -> Scenario:
    task = load_task_again(build, place)
    return Scenario(
        "photos", task, "all", {"all": ImageTask("x", task.class_names, test=task.train)}, 1
    )


def test_two_images_in_memory_of_one_name_are_two(features: Features, backbone: Backbone) -> None:
    """Arrays have no path, so tasks of arrays call their images alike."""
    one, two = (load_task(batch_of_arrays(Path(), pictures(seed))) for seed in (1, 2))
    assert one.train[0].path == two.train[0].path
    images = ImageFeatures(features.cache, backbone, tokens=False)
    found = [
        torch.cat([batch.teacher for batch in images.batches(task.train, frozen=True)])
        for task in (one, two, one)
    ]
    assert features.computed == 12
    for task, seed, rows in zip((one, two, one), (1, 2, 1), found, strict=True):
        torch.testing.assert_close(rows, expected(task, backbone, pictures(seed)))


def test_an_image_in_memory_and_in_an_archive_and_a_file_that_is_not_there(tmp_path: Path) -> None:
    zipped(tmp_path, pictures(1))
    example = Example(f"{tmp_path / 'photos.zip'}::cat/0.bmp", 0)
    shown = example.fingerprint()
    assert shown.name == "cat/0.bmp"
    assert shown.place == str(tmp_path / "photos.zip")
    other = Example(f"{tmp_path / 'photos.zip'}::cat/1.bmp", 0).fingerprint()
    assert len({shown.here, other.here, shown.anywhere, other.anywhere}) == 4
    missing = Example(str(tmp_path / "none.png"), 0).fingerprint()
    assert missing.version is not None
    assert missing.version.size == -1
    (tmp_path / "none.png").write_bytes(bmp(pictures(1)["cat"][0]))
    assert Example(str(tmp_path / "none.png"), 0).fingerprint().here != missing.here


def test_one_broken_image_in_memory_does_not_stop_the_others() -> None:
    images = [*pictures(1)["cat"], None]
    task = load_task((images, ["cat", "cat", "dog", "dog"]))
    prints = [example.fingerprint() for example in task.train]
    assert len({one.here for one in prints}) == 4
    assert "unreadable" in prints[-1].content


def test_a_link_to_another_folder_is_another_place_and_to_the_same_one_is_not(
    tmp_path: Path,
) -> None:
    folder(tmp_path / "a", pictures(1))
    (tmp_path / "b").symlink_to(tmp_path / "a")
    paths = [str(tmp_path / part / "photos" / "cat" / "0.bmp") for part in "ab"]
    identities = ImageIdentities()
    assert identities.fingerprint(paths[0]).here == identities.fingerprint(paths[1]).here


def test_many_images_cost_one_look_each(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is opened; an archive is looked at once, and so is a folder."""
    zipped(tmp_path, pictures(1))
    folder(tmp_path, pictures(1))
    looked: list[str] = []
    real, resolve = os.stat, os.path.realpath
    monkeypatch.setattr(os, "stat", lambda path: looked.append(path) or real(path))
    monkeypatch.setattr(os.path, "realpath", lambda path: looked.append(path) or resolve(path))
    monkeypatch.setattr("builtins.open", None)
    monkeypatch.setattr(Path, "open", None)
    identities = ImageIdentities()
    for _ in range(50):
        identities.fingerprint(f"{tmp_path}/photos.zip::cat/0.bmp")
        identities.fingerprint(f"{tmp_path}/photos/cat/0.bmp")
    assert len(looked) == 1 + 1 + 1 + 50
