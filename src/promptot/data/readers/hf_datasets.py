"""Data sets of Hugging Face's `datasets`: in memory, saved to a folder, or a folder of Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from promptot.data.arrow_columns import ColumnFile, class_names_of
from promptot.data.readers.columns import choose_columns
from promptot.data.readers.labelled_images import (
    LabelledImage,
    assemble,
    by_number,
    in_memory,
    list_columns,
    with_notes,
)
from promptot.data.readers.split_words import split_of
from promptot.data.readers.table import images_in_columns
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import Unreadable, brief, read_json, reading_errors

_CAST = "Cast it to datasets.Image() and save again."
STATE, INFO, SPLIT_LIST = "state.json", "dataset_info.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote a folder."""
    return (folder / SPLIT_LIST).is_file() or (folder / STATE).is_file()


def load_saved(folder: Path, name: str, columns: Mapping[str, str] | None = None) -> ImageTask:
    """Read what `save_to_disk` wrote, of a `Dataset` or of a `DatasetDict`; needs pyarrow only.

    Raises:
        PromptotError: a file is missing or damaged, or there are no images or labels.
    """
    splits, path = {"": folder}, folder / SPLIT_LIST
    if path.is_file():
        splits = {split: folder / split for split in _names_in(path, "splits")}
    images: list[LabelledImage] = []
    label_names = None
    for split, place in splits.items():
        for filename in _names_in(place / STATE, "_data_files"):
            file = ColumnFile(place / filename)
            chosen = choose_columns(file.columns, str(file.path), columns)
            chosen.pop("split", None)
            label_names = file.class_names.get(chosen["label"], label_names)
            images += images_in_columns(file, chosen, split, None, _CAST)
        if label_names is None and (place / INFO).is_file():
            named = class_names_of(_read_key(place / INFO, "features"))
            label_names = next(iter(named.values()), None)
    return _assemble(name, images, label_names)


def is_hugging_face(source: Any) -> bool:
    """Whether it is a `Dataset` or a `DatasetDict`, without importing their library."""
    return type(source).__module__.split(".")[0] == "datasets"


def load_hugging_face(
    source: Any, name: str, columns: Mapping[str, str] | None = None
) -> ImageTask:
    """Read a `Dataset` or a `DatasetDict` of `datasets`; images are decoded when they are used.

    Raises:
        PromptotError: it streams, or has no images or labels.
    """
    images: list[LabelledImage] = []
    label_names = None
    for split, part in source.items() if isinstance(source, Mapping) else [("", source)]:
        if not hasattr(part, "__len__"):
            raise PromptotError(
                "A streamed data set can't be drawn from.",
                fix="Load it without streaming=True, or take its first images into a Dataset.",
            )
        chosen = choose_columns(part.column_names, name, columns)
        chosen.pop("split", None)
        feature = part.features[chosen["label"]]
        label_names = getattr(feature, "names", label_names)
        plain = part.with_format(None)
        own = _Column(_undecoded(plain, chosen["image"]), chosen["image"])
        place = in_memory(own, f"{name}/{split}" if split else name)
        images += list_columns(chosen, partial(_values, plain), place, str(split))
    return _assemble(name, images, label_names)


@dataclass(frozen=True, eq=False)
class _Column:
    """The images of a `Dataset`: their files' bytes where it has them."""

    dataset: Any
    column: str

    def __getitem__(self, index: int) -> Any:
        image = self.dataset[index][self.column]
        if isinstance(image, dict):
            return image["path"] if image.get("bytes") is None else image["bytes"]
        return image


def _values(dataset: Any, column: str) -> Any:
    return dataset[column][:]


def _undecoded(dataset: Any, column: str) -> Any:
    feature = dataset.features[column]
    if type(feature).__name__ != "Image":
        return dataset.select_columns([column])
    raw = type(feature)(decode=False)
    return dataset.select_columns([column]).cast_column(column, raw)


def _assemble(
    name: str, images: list[LabelledImage], label_names: Sequence[str] | None
) -> ImageTask:
    """The task, without the splits that are called otherwise ("extra"), if some are usual."""
    usual = [i for i in images if not i.split or split_of(i.split) is not None] or images
    counts = Counter(i.split for i in images) - Counter(i.split for i in usual)
    notes = [
        f"The split '{split:.60}' is none to train, validate or test on: its {count} images were "
        "left out."
        for split, count in sorted(counts.items())
    ]
    return with_notes(by_number(assemble(name, usual, label_names)), *notes)


def _names_in(path: Path, key: str) -> list[str]:
    """The names of files or folders beside a JSON file that it lists, and of none elsewhere."""
    listed = _read_key(path, key)
    with _damage_explained(path):
        if not isinstance(listed, list):
            raise Unreadable(f"'{key}' is {brief(listed)}, not a list")
        names: list[str] = []
        for entry in listed:
            name = entry.get("filename") if isinstance(entry, dict) else entry
            if not isinstance(name, str) or name in ("", ".", "..") or set("/\\\0") & set(name):
                raise Unreadable(f"it names {brief(name)}, which is no file beside it")
            names.append(name)
    return names


def _read_key(path: Path, key: str) -> Any:
    """What a JSON file says under a key; None if nothing."""
    with _damage_explained(path):
        read = read_json(path)
        if not isinstance(read, dict):
            raise Unreadable("it holds no JSON object")
    return read.get(key)


def _damage_explained(path: Path) -> AbstractContextManager[None]:
    return reading_errors(f"'{path}' can't be read", "Write or copy it again.")
