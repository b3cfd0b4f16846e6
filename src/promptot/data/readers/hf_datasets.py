"""Data sets of Hugging Face's `datasets`: in memory, saved to a folder, or a folder of Parquet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from promptot.data.arrow_columns import ColumnFile, class_names_of, damaged
from promptot.data.readers.labelled_images import Found, assemble, by_number, with_notes
from promptot.data.readers.split_words import split_of
from promptot.data.readers.table import choose_columns
from promptot.data.task import Held, ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import Unreadable, brief, read_json

STATE, INFO, SPLIT_LIST = "state.json", "dataset_info.json", "dataset_dict.json"


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` of `datasets` wrote a folder."""
    return (folder / SPLIT_LIST).is_file() or (folder / STATE).is_file()


def load_saved(folder: Path, name: str, columns: Mapping[str, str] | None = None) -> ImageTask:
    """Read what `save_to_disk` wrote, of a `Dataset` or of a `DatasetDict`; needs pyarrow only.

    Raises:
        PromptotError: a file is missing or damaged, or there are no images or labels.
    """
    splits = {"": folder}
    if (folder / SPLIT_LIST).is_file():
        path = folder / SPLIT_LIST
        listed = _listed(_read_json(path), "splits", path)
        splits = {_inside(split, path): folder / _inside(split, path) for split in listed}
    found: list[Found] = []
    label_names = None
    for split, place in splits.items():
        state = place / STATE
        for entry in _listed(_read_json(state), "_data_files", state):
            filename = entry.get("filename") if isinstance(entry, dict) else entry
            file = ColumnFile(place / _inside(filename, state))
            chosen = choose_columns(file.columns, str(file.path), columns)
            label_names = file.class_names.get(chosen["label"], label_names)
            labels = file.values(chosen["label"])
            domains = file.values(chosen["domain"]) if "domain" in chosen else [""] * file.rows
            paths = file.image_paths(chosen["image"])
            if paths is None:
                raise PromptotError(
                    f"The column '{chosen['image']}' of '{place}' holds no images.",
                    fix="Cast it to datasets.Image() and save again.",
                )
            prefix = f"{file.path}::{chosen['image']}::"
            found += [
                Found(f"{prefix}{row}" if own is None else own, label, split, str(domain or ""))
                for row, (own, label, domain) in enumerate(zip(paths, labels, domains, strict=True))
            ]
        if label_names is None and (place / INFO).is_file():
            named = class_names_of(_read_json(place / INFO).get("features"))
            label_names = next(iter(named.values()), None)
    return _assemble(name, found, label_names)


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
    found: list[Found] = []
    label_names = None
    for split, part in source.items() if isinstance(source, Mapping) else [("", source)]:
        if not hasattr(part, "__len__"):
            raise PromptotError(
                "A streamed data set can't be drawn from.",
                fix="Load it without streaming=True, or take its first images into a Dataset.",
            )
        chosen = choose_columns(part.column_names, name, columns)
        feature = part.features[chosen["label"]]
        label_names = getattr(feature, "names", label_names)
        plain = part.with_format(None)
        labels = plain[chosen["label"]][:]
        domains = plain[chosen["domain"]][:] if "domain" in chosen else [""] * len(part)
        images = _Column(_undecoded(plain, chosen["image"]), chosen["image"])
        prefix = f"{name}/{split}" if split else name
        found += [
            Found(f"{prefix}[{row}]", label, str(split), str(domain or ""), Held(images, row))
            for row, (label, domain) in enumerate(zip(labels, domains, strict=True))
        ]
    return _assemble(name, found, label_names)


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


def _undecoded(dataset: Any, column: str) -> Any:
    feature = dataset.features[column]
    if type(feature).__name__ != "Image":
        return dataset.select_columns([column])
    raw = type(feature)(decode=False)
    return dataset.select_columns([column]).cast_column(column, raw)


def _assemble(name: str, found: list[Found], label_names: Sequence[str] | None) -> ImageTask:
    usual = _with_usual_splits(found)
    counts = Counter(item.split for item in found) - Counter(item.split for item in usual)
    notes = [
        f"The split '{split:.60}' is none to train, validate or test on: its {count} images were "
        "left out."
        for split, count in sorted(counts.items())
    ]
    return with_notes(by_number(assemble(name, usual, label_names)), *notes)


def _with_usual_splits(found: list[Found]) -> list[Found]:
    """Without the splits that are called otherwise ("unsupervised", "extra"), if some are usual."""
    usual = [item for item in found if not item.split or split_of(item.split) is not None]
    return usual or found


def _read_json(path: Path) -> dict[str, Any]:
    try:
        read = read_json(path)
        if not isinstance(read, dict):
            raise Unreadable("it holds no JSON object")
        return read
    except Unreadable as error:
        raise damaged(path, error) from error


def _listed(read: Mapping[str, Any], key: str, path: Path) -> list[Any]:
    values = read.get(key)
    if not isinstance(values, list):
        raise damaged(path, Unreadable(f"'{key}' is {brief(values)}, not a list"))
    return values


def _inside(name: Any, path: Path) -> str:
    """The name of a file or a folder beside `path`, and not of one elsewhere."""
    plain = isinstance(name, str) and name not in ("", ".", "..")
    if not plain or set("/\\\0") & set(name):
        raise damaged(path, Unreadable(f"it names {brief(name)}, which is no file beside it"))
    return str(name)
