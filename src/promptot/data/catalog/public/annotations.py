"""Each data set's own annotations, read where there is no split file.

Every function takes the facts, the folder that holds all data sets, and gives the lists; rows hold
paths below the data set's image folder. Where the original data set has no validation or no test
split, the sizes are those of the published splits, but not the images (see `divide`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from promptot.data.catalog.public.imagenet import imagenet_folders, read_names
from promptot.data.catalog.public.listing import (
    Lists,
    Row,
    divide,
    folders_in,
    hold_out,
    images_in,
    read_json,
    read_mat,
    text_lines,
)
from promptot.data.catalog.public.public_sets import PublicSet
from promptot.errors import PromptotError

Reader = Callable[[PublicSet, Path], Lists]


def class_folders(facts: PublicSet, root: Path) -> Lists:
    """A folder a class; divided 50 : 20 : 30."""
    place = root / facts.folder / facts.images
    kept = [folder for folder in folders_in(place) if folder not in facts.ignored]
    rows = [
        Row(f"{folder}/{image}", label, facts.renamed.get(folder, folder))
        for label, folder in enumerate(kept)
        for image in images_in(place / folder)
    ]
    return divide(rows)


def pets(facts: PublicSet, root: Path) -> Lists:
    """OxfordPets: "Abyssinian_100 1 1 1", where the second is the class, counted from 1."""

    def read(file: str) -> list[Row]:
        rows = []
        path = root / facts.folder / "annotations" / file
        for line in text_lines(path):
            image, label = _fields(line, 2, path)[:2]
            breed = image.rpartition("_")[0].lower()
            rows.append(Row(f"{image}.jpg", _number(label, path) - 1, breed))
        return rows

    return hold_out(read("trainval.txt"), read("test.txt"))


def cars(facts: PublicSet, root: Path) -> Lists:
    """StanfordCars: MATLAB annotations; the year of a name comes to its front."""
    place = root / facts.folder
    names = []
    for name in read_mat(place / "devkit" / "cars_meta.mat", "class_names"):
        model, _, year = str(name).rpartition(" ")
        names.append(f"{year} {model}".strip())

    def read(folder: str, path: Path) -> list[Row]:
        found = read_mat(path, "annotations").reshape(-1)
        try:
            labelled = [(str(row["fname"]), int(row["class"]) - 1) for row in found]
            return [Row(f"{folder}/{image}", label, names[label]) for image, label in labelled]
        except (ValueError, IndexError, TypeError, KeyError):
            raise PromptotError(
                f"'{path}' lacks labels or names.", fix="Take the file with labels."
            ) from None

    train = read("cars_train", place / "devkit" / "cars_train_annos.mat")
    return hold_out(train, read("cars_test", place / "cars_test_annos_withlabels.mat"))


def flowers(facts: PublicSet, root: Path) -> Lists:
    """Flowers102: the labels of images 1, 2, 3, …, from 1; divided 50 : 20 : 30."""
    place = root / facts.folder
    names = read_json(place / "cat_to_name.json")
    found = read_mat(place / "imagelabels.mat", "labels")
    try:
        labels = [int(label) for label in found.reshape(-1)]
    except (AttributeError, ValueError, TypeError, OverflowError):
        raise PromptotError(
            f"'{place / 'imagelabels.mat'}' holds other labels than numbers.",
            fix="Download it again.",
        ) from None
    if not isinstance(names, dict) or not {str(label) for label in labels} <= names.keys():
        raise PromptotError(
            f"'{place / 'cat_to_name.json'}' does not name all classes.", fix="Download it again."
        )
    rows = [
        Row(f"image_{number:05d}.jpg", label - 1, str(names[str(label)]))
        for number, label in enumerate(labels, start=1)
    ]
    return divide(rows)


def aircraft(facts: PublicSet, root: Path) -> Lists:
    """FGVCAircraft: "1025794 707-320"; the original splits by variant."""
    place = root / facts.folder
    labels = {name: label for label, name in enumerate(text_lines(place / "variants.txt"))}

    def read(split: str) -> list[Row]:
        path = place / f"images_variant_{split}.txt"
        rows = []
        for line in text_lines(path):
            image, name = _fields(line, 2, path, at_most=2)
            rows.append(Row(f"{image}.jpg", _label(name, labels, path), name))
        return rows

    return Lists(read("train"), read("val"), read("test"))


def sun(facts: PublicSet, root: Path) -> Lists:
    """SUN397: "/a/abbey/sun_x.jpg"; "/b/bakery/shop" is called "shop bakery"."""
    place = root / facts.folder
    folders = [line.strip("/") for line in text_lines(place / "ClassName.txt")]
    labels = {folder: label for label, folder in enumerate(folders)}

    def read(path: Path) -> list[Row]:
        rows = []
        for line in text_lines(path):
            image = line.strip("/")
            folder = image.rpartition("/")[0]
            words = folder.split("/")[1:]
            rows.append(Row(image, _label(folder, labels, path), " ".join(reversed(words))))
        return rows

    return hold_out(read(place / "Training_01.txt"), read(place / "Testing_01.txt"))


def ucf(facts: PublicSet, root: Path) -> Lists:
    """UCF101, split 1: "ApplyEyeMakeup/v_x.avi 1"; frames lie in Apply_Eye_Makeup/v_x.jpg."""
    place = root / facts.folder / "ucfTrainTestlist"
    labels = {}
    for line in text_lines(place / "classInd.txt"):
        number, name = _fields(line, 2, place / "classInd.txt")
        labels[name] = _number(number, place / "classInd.txt") - 1

    def read(path: Path) -> list[Row]:
        rows = []
        for line in text_lines(path):
            action, _, video = line.split()[0].partition("/")
            name = "_".join(re.findall("[A-Z][^A-Z]*", action))
            frame = f"{name}/{video.removesuffix('.avi')}.jpg"
            rows.append(Row(frame, _label(action, labels, path), name))
        return rows

    return hold_out(read(place / "trainlist01.txt"), read(place / "testlist01.txt"))


def imagenet(facts: PublicSet, root: Path) -> Lists:
    """ImageNet: train/ and val/, a folder a class; val/ is what is tested."""
    place = root / facts.folder / facts.images
    names = read_names([root / facts.folder])
    folders = folders_in(place / "train")
    if folders and not folders_in(place / "val") and images_in(place / "val"):
        raise PromptotError(
            f"The images in '{place / 'val'}' do not lie in class folders.",
            fix="Sort them into folders called as those of train/.",
        )

    def read(split: str) -> list[Row]:
        labels = {folder: label for label, folder in enumerate(folders)}
        rows = []
        for folder in folders_in(place / split):
            label = _label(folder, labels, place / split)
            name = _name(folder, names, place / split)
            images = images_in(place / split / folder)
            rows += [Row(f"{split}/{folder}/{image}", label, name) for image in images]
        return rows

    return Lists(read("train"), [], read("val"))


def imagenet_folders_only(facts: PublicSet, root: Path) -> Lists:
    """ImageNet-Sketch, -A and -R: folders called as ImageNet's, as many as there are."""
    place = root / facts.folder / facts.images
    names = read_names([root / facts.folder, root / "imagenet"])
    rows = []
    for label, folder in enumerate(folders_in(place)):
        name = _name(folder, names, place)
        rows += [Row(f"{folder}/{image}", label, name) for image in images_in(place / folder)]
    return Lists([], [], rows)


def imagenet_indices(facts: PublicSet, root: Path) -> Lists:
    """ImageNetV2: folders called as ImageNet's labels, "0" to "999"."""
    place = root / facts.folder / facts.images
    names = read_names([root / facts.folder, root / "imagenet"])
    labels = {str(label): label for label in range(len(imagenet_folders()))}
    known = sorted((_label(folder, labels, place), folder) for folder in folders_in(place))
    rows = []
    for label, (index, folder) in enumerate(known):
        name = _name(imagenet_folders()[index], names, place)
        rows += [Row(f"{folder}/{image}", label, name) for image in images_in(place / folder)]
    return Lists([], [], rows)


LAYOUTS: Mapping[str, Reader] = {
    "class-folders": class_folders,
    "pets": pets,
    "cars": cars,
    "flowers": flowers,
    "aircraft": aircraft,
    "sun": sun,
    "ucf": ucf,
    "imagenet": imagenet,
    "imagenet-folders": imagenet_folders_only,
    "imagenet-indices": imagenet_indices,
}


def _fields(line: str, least: int, path: Path, at_most: int = 0) -> list[str]:
    fields = line.split(None, at_most - 1) if at_most else line.split()
    if len(fields) < least:
        raise PromptotError(f"Can't read '{line}' in '{path}'.", fix="Download the file again.")
    return fields


def _number(text: str, path: Path) -> int:
    try:
        return int(text)
    except ValueError:
        raise PromptotError(
            f"'{text}' in '{path}' is no number.", fix="Download the file again."
        ) from None


def _label(name: str, labels: Mapping[str, int], path: Path) -> int:
    if name not in labels:
        raise PromptotError(f"'{path}' has the unknown class '{name}'.", fix="Check the files.")
    return labels[name]


def _name(folder: str, names: Mapping[str, str], place: Path) -> str:
    if folder not in names:
        raise PromptotError(
            f"The folder '{place / folder}' is none of ImageNet's classes.", fix="Remove it."
        )
    return names[folder]
