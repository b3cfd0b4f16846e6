"""Each data set's own annotations, read where there is no split file.

Every reader takes the data set and the folder that holds all of them, and gives the lists; rows
hold paths below the data set's image folder. Where the original data set has no validation or no
test split, the sizes are those of the published splits, but not the images (see `divide`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
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
Labels = Mapping[str, int]
"""The label of each class, as the annotations call it."""


def _class_folders(known: PublicSet, root: Path) -> Lists:
    """A folder a class; divided 50 : 20 : 30."""
    place = root / known.folder / known.images
    folders = [folder for folder in folders_in(place) if folder not in known.ignored]
    return divide(_rows(place, folders, lambda folder: known.renamed.get(folder, folder)))


def _cars(known: PublicSet, root: Path) -> Lists:
    """StanfordCars: MATLAB annotations; the year of a name comes to its front."""
    place = root / known.folder
    names = []
    for name in read_mat(place / "devkit" / "cars_meta.mat", "class_names"):
        model, _, year = str(name).rpartition(" ")
        names.append(f"{year} {model}".strip())

    def read(folder: str, path: Path) -> list[Row]:
        listed = read_mat(path, "annotations").reshape(-1)
        try:
            labelled = [(str(row["fname"]), int(row["class"]) - 1) for row in listed]
            return [Row(f"{folder}/{image}", label, names[label]) for image, label in labelled]
        except (ValueError, IndexError, TypeError, KeyError):
            raise PromptotError(
                f"'{path}' lacks labels or names.", fix="Take the file with labels."
            ) from None

    train = read("cars_train", place / "devkit" / "cars_train_annos.mat")
    return hold_out(train, read("cars_test", place / "cars_test_annos_withlabels.mat"))


def _flowers(known: PublicSet, root: Path) -> Lists:
    """Flowers102: the labels of images 1, 2, 3, …, from 1; divided 50 : 20 : 30."""
    labelled, named = (
        root / known.folder / file for file in ("imagelabels.mat", "cat_to_name.json")
    )
    names = read_json(named)
    numbers = read_mat(labelled, "labels")
    try:
        labels = [int(label) for label in numbers.reshape(-1)]
    except (AttributeError, ValueError, TypeError, OverflowError):
        problem = f"'{labelled}' holds other labels than numbers."
        raise PromptotError(problem, fix="Download it again.") from None
    if not isinstance(names, dict) or not {str(label) for label in labels} <= names.keys():
        raise PromptotError(f"'{named}' does not name all classes.", fix="Download it again.")
    return divide(
        [
            Row(f"image_{number:05d}.jpg", label - 1, str(names[str(label)]))
            for number, label in enumerate(labels, start=1)
        ]
    )


def _in_lines(
    files: Sequence[str],
    row: Callable[[str, Labels, Path], Row],
    labels: Callable[[Path], Labels] = lambda place: {},
) -> Reader:
    """A reader of text files with a line an image.

    Args:
        files: of training and test images, or of training, validation and test images.
        row: gives the image of a line, by the labels; the path is that of the file.
        labels: of the classes, from the data set's folder.
    """

    def read(known: PublicSet, root: Path) -> Lists:
        place = root / known.folder
        known_labels = labels(place)
        lists = [
            [row(line, known_labels, place / file) for line in text_lines(place / file)]
            for file in files
        ]
        return Lists(*lists) if len(lists) == 3 else hold_out(*lists)

    return read


def _pet(line: str, labels: Labels, path: Path) -> Row:
    """OxfordPets: "Abyssinian_100 1 1 1", where the second is the class, counted from 1."""
    image, label = _fields(line, 2, path)[:2]
    return Row(f"{image}.jpg", _number(label, path) - 1, image.rpartition("_")[0].lower())


def _aircraft(line: str, labels: Labels, path: Path) -> Row:
    """FGVCAircraft: "1025794 707-320"; the original splits by variant."""
    image, name = _fields(line, 2, path, at_most=2)
    return Row(f"{image}.jpg", _label(name, labels, path), name)


def _scene(line: str, labels: Labels, path: Path) -> Row:
    """SUN397: "/a/abbey/sun_x.jpg"; "/b/bakery/shop" is called "shop bakery"."""
    image = line.strip("/")
    folder = image.rpartition("/")[0]
    words = folder.split("/")[1:]
    return Row(image, _label(folder, labels, path), " ".join(reversed(words)))


def _action(line: str, labels: Labels, path: Path) -> Row:
    """UCF101, split 1: "ApplyEyeMakeup/v_x.avi 1"; frames lie in Apply_Eye_Makeup/v_x.jpg."""
    action, _, video = line.split()[0].partition("/")
    name = "_".join(re.findall("[A-Z][^A-Z]*", action))
    image = f"{name}/{video.removesuffix('.avi')}.jpg"
    return Row(image, _label(action, labels, path), name)


def _actions(place: Path) -> Labels:
    """The labels of UCF101's classes: "1 ApplyEyeMakeup"."""
    path = place / _UCF / "classInd.txt"
    rows = [_fields(line, 2, path) for line in text_lines(path)]
    return {name: _number(number, path) - 1 for number, name in rows}


def _listed_in(file: str) -> Callable[[Path], Labels]:
    """The labels of the classes in a file, a line each."""
    return lambda place: {
        line.strip("/"): label for label, line in enumerate(text_lines(place / file))
    }


def _imagenet(known: PublicSet, root: Path) -> Lists:
    """ImageNet: train/ and val/, a folder a class; val/ is what is tested."""
    place = root / known.folder / known.images
    names = read_names([root / known.folder])
    folders = folders_in(place / "train")
    if folders and not folders_in(place / "val") and images_in(place / "val"):
        raise PromptotError(
            f"The images in '{place / 'val'}' do not lie in class folders.",
            fix="Sort them into folders called as those of train/.",
        )
    labels = {folder: label for label, folder in enumerate(folders)}

    def read(split: str) -> list[Row]:
        own = place / split
        rows = _rows(own, folders_in(own), lambda folder: _name(folder, names, own), labels)
        return [row._replace(path=f"{split}/{row.path}") for row in rows]

    return Lists(read("train"), [], read("val"))


def _imagenet_folders(known: PublicSet, root: Path) -> Lists:
    """ImageNet-Sketch, -A and -R: folders called as ImageNet's, as many as there are."""
    place = root / known.folder / known.images
    names = read_names([root / known.folder, root / "imagenet"])
    return Lists(
        [], [], _rows(place, folders_in(place), lambda folder: _name(folder, names, place))
    )


def _imagenet_indices(known: PublicSet, root: Path) -> Lists:
    """ImageNetV2: folders called as ImageNet's labels, "0" to "999"."""
    place = root / known.folder / known.images
    names = read_names([root / known.folder, root / "imagenet"])
    labels = {str(label): label for label in range(len(imagenet_folders()))}
    folders = sorted(folders_in(place), key=lambda folder: _label(folder, labels, place))
    own = {folder: imagenet_folders()[labels[folder]] for folder in folders}
    return Lists([], [], _rows(place, folders, lambda folder: _name(own[folder], names, place)))


_UCF = "ucfTrainTestlist"
LAYOUTS: Mapping[str, Reader] = {
    "class-folders": _class_folders,
    "pets": _in_lines(["annotations/trainval.txt", "annotations/test.txt"], _pet),
    "cars": _cars,
    "flowers": _flowers,
    "aircraft": _in_lines(
        [f"images_variant_{split}.txt" for split in ("train", "val", "test")],
        _aircraft,
        _listed_in("variants.txt"),
    ),
    "sun": _in_lines(["Training_01.txt", "Testing_01.txt"], _scene, _listed_in("ClassName.txt")),
    "ucf": _in_lines([f"{_UCF}/trainlist01.txt", f"{_UCF}/testlist01.txt"], _action, _actions),
    "imagenet": _imagenet,
    "imagenet-folders": _imagenet_folders,
    "imagenet-indices": _imagenet_indices,
}


def _rows(
    place: Path, folders: Iterable[str], name: Callable[[str], str], labels: Labels | None = None
) -> list[Row]:
    """The images of class folders, whose labels are by default their places."""
    rows = []
    for number, folder in enumerate(folders):
        label = number if labels is None else _label(folder, labels, place)
        own = name(folder)
        rows += [Row(f"{folder}/{image}", label, own) for image in images_in(place / folder)]
    return rows


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


def _label(name: str, labels: Labels, path: Path) -> int:
    if name not in labels:
        raise PromptotError(f"'{path}' has the unknown class '{name}'.", fix="Check the files.")
    return labels[name]


def _name(folder: str, names: Mapping[str, str], place: Path) -> str:
    if folder not in names:
        raise PromptotError(
            f"The folder '{place / folder}' is none of ImageNet's classes.", fix="Remove it."
        )
    return names[folder]
