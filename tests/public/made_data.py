"""The public data sets' folders, made small: three classes each, tiny images, every annotation."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from promptot.data.catalog.public import public_sets
from promptot.data.catalog.public.imagenet import imagenet_folders

CLASSES = 3
SIDE = 16
TRAIN, VALIDATION, TEST = 2, 1, 2  # images a class

Split = dict[str, list[list]]


class Painter:
    """Writes images: a class is a colour, an image some noise on it."""

    def __init__(self) -> None:
        self._generator = np.random.default_rng(0)

    def __call__(self, path: Path, label: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        colour = np.array([(200, 30, 30), (40, 180, 60), (30, 60, 210)][label % CLASSES])
        noise = self._generator.normal(0, 25, (SIDE, SIDE, 3))
        pixels = np.clip(colour + noise, 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(path, "JPEG")


def make_public_data(root: Path, *, splits: bool = True) -> Path:
    """Write all fifteen data sets below `root`.

    Args:
        root: a folder.
        splits: write the community's split files; otherwise the original annotations alone.
    """
    paint = Painter()
    for key, make in MAKERS.items():
        facts = public_sets()[key]
        own = root / facts.folder
        split = make(own, paint)
        if splits and facts.split is not None:
            (own / facts.split).write_text(json.dumps(split))
    return root


def _split_of(rows: dict[str, list[tuple[str, int, str]]]) -> Split:
    return {part: [list(row) for row in listed] for part, listed in rows.items()}


def _class_folders(images: str, names: list[str], shown: list[str]) -> Callable[..., Split]:
    """Folders `names`, whose classes are called `shown`; ten images each, for all three splits."""

    def make(own: Path, paint: Painter) -> Split:
        rows: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
        for label, (folder, name) in enumerate(zip(names, shown, strict=True)):
            parts = ["train"] * 5 + ["val"] * 2 + ["test"] * 3
            for number, part in enumerate(parts):
                paint(own / images / folder / f"image_{number:04d}.jpg", label)
                rows[part].append((f"{folder}/image_{number:04d}.jpg", label, name))
        return _split_of(rows)

    return make


def _caltech(own: Path, paint: Painter) -> Split:
    for ignored in ("BACKGROUND_Google", "Faces_easy"):
        paint(own / "101_ObjectCategories" / ignored / "image_0001.jpg", 0)
    names = ["Faces", "Motorbikes", "sea_horse"]
    make = _class_folders("101_ObjectCategories", names, ["face", "motorbike", "sea_horse"])
    return make(own, paint)


def _pets(own: Path, paint: Painter) -> Split:
    breeds = ["Abyssinian", "american_bulldog", "yorkshire_terrier"]
    rows: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    lines: dict[str, list[str]] = {"trainval": [], "test": []}
    for label, breed in enumerate(breeds):
        for number in range(7):
            part = "test" if number > 4 else "val" if number == 4 else "train"
            paint(own / "images" / f"{breed}_{number}.jpg", label)
            rows[part].append((f"{breed}_{number}.jpg", label, breed.lower()))
            file = "test" if part == "test" else "trainval"
            lines[file].append(f"{breed}_{number} {label + 1} 1 1")
    (own / "annotations").mkdir()
    for file, text in lines.items():
        (own / "annotations" / f"{file}.txt").write_text("\n".join(text) + "\n")
    return _split_of(rows)


def _cars(own: Path, paint: Painter) -> Split:
    from scipy.io import savemat

    models = ["AM General Hummer SUV 2000", "Acura RL Sedan 2012", "Audi TT RS Coupe 2012"]
    shown = ["2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Audi TT RS Coupe"]
    rows: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    listed: dict[str, list[tuple]] = {"cars_train": [], "cars_test": []}
    for label, name in enumerate(shown):
        for number in range(7):
            part = "test" if number > 4 else "val" if number == 4 else "train"
            folder = "cars_test" if part == "test" else "cars_train"
            image = f"{label}{number:04d}.jpg"
            paint(own / folder / image, label)
            rows[part].append((f"{folder}/{image}", label, name))
            listed[folder].append((1, 1, 9, 9, label + 1, image))
    kinds = [(field, object) for field in ("x1", "y1", "x2", "y2", "class", "fname")]
    (own / "devkit").mkdir()
    savemat(own / "devkit" / "cars_meta.mat", {"class_names": np.array(models, dtype=object)})
    for folder, file in (
        ("cars_train", "devkit/cars_train_annos.mat"),
        ("cars_test", "cars_test_annos_withlabels.mat"),
    ):
        savemat(own / file, {"annotations": np.array(listed[folder], dtype=kinds)})
    return _split_of(rows)


def _flowers(own: Path, paint: Painter) -> Split:
    from scipy.io import savemat

    names = {"1": "pink primrose", "2": "hard-leaved pocket orchid", "3": "canterbury bells"}
    rows: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    labels = []
    for number in range(30):
        label, place = number % 3, number // 3
        part = "train" if place < 5 else "val" if place < 7 else "test"
        image = f"image_{number + 1:05d}.jpg"
        paint(own / "jpg" / image, label)
        labels.append(label + 1)
        rows[part].append((image, label, names[str(label + 1)]))
    savemat(own / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    (own / "cat_to_name.json").write_text(json.dumps(names))
    return _split_of(rows)


def _aircraft(own: Path, paint: Painter) -> Split:
    variants = ["707-320", "727-200", "F-16A/B"]
    lines: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for label, name in enumerate(variants):
        for number, part in enumerate(["train"] * TRAIN + ["val"] * VALIDATION + ["test"] * TEST):
            image = f"{label}{number:06d}"
            paint(own / "images" / f"{image}.jpg", label)
            lines[part].append(f"{image} {name}")
    (own / "variants.txt").write_text("\n".join(variants) + "\n")
    for part, text in lines.items():
        (own / f"images_variant_{part}.txt").write_text("\n".join(text) + "\n")
    return {}


def _sun(own: Path, paint: Painter) -> Split:
    folders = ["/a/abbey", "/b/bakery/shop", "/y/youth_hostel"]
    shown = ["abbey", "shop bakery", "youth_hostel"]
    rows: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    lines: dict[str, list[str]] = {"Training_01": [], "Testing_01": []}
    for label, (folder, name) in enumerate(zip(folders, shown, strict=True)):
        for number in range(7):
            part = "test" if number > 4 else "val" if number == 4 else "train"
            image = f"{folder}/sun_{label}{number}.jpg"
            paint(own / "SUN397" / image[1:], label)
            rows[part].append((image[1:], label, name))
            lines["Testing_01" if part == "test" else "Training_01"].append(image)
    (own / "ClassName.txt").write_text("\n".join(folders) + "\n")
    for file, text in lines.items():
        (own / f"{file}.txt").write_text("\n".join(text) + "\n")
    return _split_of(rows)


def _ucf(own: Path, paint: Painter) -> Split:
    actions = ["ApplyEyeMakeup", "Archery", "YoYo"]
    shown = ["Apply_Eye_Makeup", "Archery", "Yo_Yo"]
    rows: dict[str, list[tuple[str, int, str]]] = {"train": [], "val": [], "test": []}
    lines: dict[str, list[str]] = {"trainlist01": [], "testlist01": []}
    for label, (action, name) in enumerate(zip(actions, shown, strict=True)):
        for number in range(7):
            part = "test" if number > 4 else "val" if number == 4 else "train"
            video = f"v_{action}_g01_c{number:02d}"
            paint(own / "UCF-101-midframes" / name / f"{video}.jpg", label)
            rows[part].append((f"{name}/{video}.jpg", label, name))
            if part == "test":
                lines["testlist01"].append(f"{action}/{video}.avi")
            else:
                lines["trainlist01"].append(f"{action}/{video}.avi {label + 1}")
    lists = own / "ucfTrainTestlist"
    lists.mkdir()
    numbered = [f"{label} {action}" for label, action in enumerate(actions, start=1)]
    (lists / "classInd.txt").write_text("\n".join(numbered) + "\n")
    for file, text in lines.items():
        (lists / f"{file}.txt").write_text("\n".join(text) + "\n")
    return _split_of(rows)


def _imagenet(own: Path, paint: Painter) -> Split:
    for label, folder in enumerate(imagenet_folders()[:CLASSES]):
        for number in range(TRAIN):
            paint(own / "images" / "train" / folder / f"{folder}_{number}.JPEG", label)
        for number in range(TEST):
            paint(own / "images" / "val" / folder / f"val_{label}{number}.JPEG", label)
    return {}


def _domain(images: str, folders: list[tuple[str, int]]) -> Callable[..., Split]:
    def make(own: Path, paint: Painter) -> Split:
        for folder, label in folders:
            for number in range(TEST):
                paint(own / images / folder / f"{number}.jpeg", label)
        (own / images / "README.txt").write_text("no class\n")
        return {}

    return make


_WNIDS = list(imagenet_folders()[:CLASSES])

MAKERS: dict[str, Callable[[Path, Painter], Split]] = {
    "imagenet": _imagenet,
    "caltech101": _caltech,
    "oxford_pets": _pets,
    "stanford_cars": _cars,
    "oxford_flowers": _flowers,
    "food101": _class_folders("images", *[["apple_pie", "beignets", "waffles"]] * 2),
    "fgvc_aircraft": _aircraft,
    "sun397": _sun,
    "dtd": _class_folders("images", *[["banded", "blotchy", "zigzagged"]] * 2),
    "eurosat": _class_folders(
        "2750",
        ["AnnualCrop", "Forest", "SeaLake"],
        ["Annual Crop Land", "Forest", "Sea or Lake"],
    ),
    "ucf101": _ucf,
    "imagenetv2": _domain(
        "imagenetv2-matched-frequency-format-val", [("0", 0), ("1", 1), ("2", 2)]
    ),
    "imagenet-sketch": _domain("images", [(w, i) for i, w in enumerate(_WNIDS)]),
    "imagenet-a": _domain("imagenet-a", [(_WNIDS[0], 0), (_WNIDS[2], 2)]),
    "imagenet-r": _domain("imagenet-r", [(_WNIDS[1], 1), (_WNIDS[2], 2)]),
}
