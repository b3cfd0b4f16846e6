"""A public data set from the disk: the community's split where it is there, else its own files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from promptot.data.catalog.public.annotations import LAYOUTS
from promptot.data.catalog.public.listing import Lists, Row, read_json
from promptot.data.catalog.public.public_sets import PublicSet, find_set
from promptot.data.class_names import clean_name
from promptot.data.task import Example, ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import brief

SPLITS = ("train", "val", "test")
"""The keys of a split file."""
MOST_DIGITS = 9
"""Of a label."""


@dataclass(frozen=True, eq=False)
class PublicTask:
    """A public data set that was found.

    Attributes:
        public_set: what is known of it.
        task: its images, class names and template.
        place: the folder that the paths of split files and shot lists start from.
        published_split: whether the splits are the published ones, image by image.
        digest: hash of names, labels and relative paths: the same wherever the data lie.
    """

    public_set: PublicSet
    task: ImageTask
    place: Path
    published_split: bool
    digest: str


def load_public(name: str, root: str | Path) -> PublicTask:
    """Read the lists of a public data set; no image is opened.

    Args:
        name: its key, name or folder ("caltech101", "Caltech101", "caltech-101").
        root: the folder that holds all data sets.

    Raises:
        PromptotError: the data set is unknown, or its files are not there or not what they should
            be.
    """
    public_set = find_set(name)
    own = Path(root) / public_set.folder
    place = own / public_set.images
    if not place.is_dir():
        raise PromptotError(
            f"{public_set.name}: there is no folder '{place}'.",
            fix="`promptot data check` says where it comes from.",
        )
    split = None if public_set.split is None else own / public_set.split
    if split is not None and split.is_file():
        lists, published = read_split(split), True
    else:
        lists, published = (
            LAYOUTS[public_set.layout](public_set, Path(root)),
            public_set.split is None,
        )
    task = _to_task(public_set, lists, place)
    return PublicTask(public_set, task, place, published, _digest(task.class_names, lists))


def read_split(path: Path) -> Lists:
    """A split file of the community: {"train" | "val" | "test": [[path, label, name], …]}.

    Raises:
        PromptotError: it can't be read, or is something else.
    """
    content = read_json(path)
    if not isinstance(content, dict) or not set(SPLITS) <= content.keys():
        raise PromptotError(f"'{path}' is not a split file.", fix="It needs train, val and test.")
    return Lists(*(read_rows(content[split], path) for split in SPLITS))


def read_rows(listed: Any, path: Path) -> list[Row]:
    """Rows from [[path, label, name], …], each checked.

    Raises:
        PromptotError: an entry is something else, or leads out of the data set's folder.
    """
    if not isinstance(listed, list):
        raise PromptotError(f"'{path}' is not a list of images.", fix="Download it again.")
    rows = []
    for entry in listed:
        match entry:
            case [str(image), int(label) | str(label), str(name)] if _is_label(label):
                rows.append(Row(_inside(image, path), int(label), name))
            case _:
                raise PromptotError(
                    f"'{path}' has the entry {brief(entry)}.",
                    fix="Each one is [path, label, class name].",
                )
    return rows


def _is_label(label: int | str) -> bool:
    text = str(label)
    return len(text) <= MOST_DIGITS and text.isdecimal()


def _inside(image: str, path: Path) -> str:
    """A relative path that stays where it starts."""
    parts = PurePosixPath(image.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0] == "/" or PureWindowsPath(image).drive:
        raise PromptotError(
            f"'{path}' names {brief(image)}, which lies outside the data set.",
            fix="Remove the entry.",
        )
    return "/".join(parts)


def _to_task(public_set: PublicSet, lists: Lists, place: Path) -> ImageTask:
    names: dict[int, str] = {}
    for row in (*lists.train, *lists.validation, *lists.test):
        if names.setdefault(row.label, row.name) != row.name:
            raise PromptotError(
                f"{public_set.name}: label {row.label} is '{names[row.label]}' and '{row.name}'.",
                fix="Repair or remove the split file.",
            )
    if not names:
        raise PromptotError(
            f"{public_set.name}: there is no image in '{place}'.",
            fix="`promptot data check` says where they come from.",
        )
    if max(names) >= len(names):
        missing = min(set(range(len(names))) - names.keys())
        raise PromptotError(
            f"{public_set.name}: no image has the label {missing}.",
            fix="Labels count from 0; repair the split file.",
        )

    class_names = tuple(clean_name(names[label]) for label in range(len(names)))
    task = ImageTask(public_set.name, class_names, template=public_set.template)
    return task.with_splits({s: examples_in(place, own) for s, own in lists._asdict().items()})


def examples_in(place: Path, rows: Iterable[Row]) -> tuple[Example, ...]:
    """The images of rows whose paths start from a folder."""
    return tuple(Example(f"{place}/{row.path}", row.label) for row in rows)


def _digest(class_names: Sequence[str], lists: Lists) -> str:
    digest = hashlib.sha256("\n".join(class_names).encode())
    for rows in lists:
        digest.update(b"\n\n")
        for row in rows:
            digest.update(f"{row.label} {row.path}\n".encode("utf8", "surrogateescape"))
    return digest.hexdigest()
