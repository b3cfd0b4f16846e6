"""One function for every source of images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from promptot.data.catalog.drawings import load_bundled
from promptot.data.class_names import check_task_names, clean_name
from promptot.data.readers.archive import ARCHIVES, open_tree
from promptot.data.readers.by_split import join_splits
from promptot.data.readers.description import beside, read_description
from promptot.data.readers.folder import load_folder, load_tree
from promptot.data.readers.hf_datasets import (
    is_hugging_face,
    is_saved,
    load_hugging_face,
    load_saved,
)
from promptot.data.readers.in_memory import is_data_set, load_data_set, load_pairs
from promptot.data.readers.junk import is_out_of_the_way
from promptot.data.readers.metadata import load_with_metadata
from promptot.data.readers.renaming import check_names, load_names, rename
from promptot.data.readers.table import COLUMN_TABLES, TEXT_TABLES, load_frame, load_table
from promptot.data.readers.webdataset import check_keys, find_shards, is_shard, load_shards
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import brief

BUNDLED = "bundled:"
_DESCRIPTIONS = (".yaml", ".yml")
_COMPRESSED = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")
_MOST_DESCRIPTIONS = 8
_ACCEPTED = (
    "Give a folder of class folders, a .zip or .tar of one, a table (.csv, .tsv, .jsonl, .parquet, "
    ".arrow), WebDataset shards, a folder that `datasets` saved, a .yaml description, or "
    "bundled:<group>."
)


def load_task(
    source: Any,
    *,
    template: str | None = None,
    names: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    keep_same_names: bool = False,
) -> ImageTask:
    """Read images, labels and class names from whatever holds them.

    | source | what it is |
    |---|---|
    | `photos/`, `photos.zip`, `photos.tar` | class folders, perhaps below train, val and test |
    | `photos.csv`, `.tsv`, `.jsonl`, `.parquet` | a table: path, label, perhaps split and domain |
    | `shards/`, `shard-{000..012}.tar` | WebDataset |
    | `saved/`, `data/*.parquet` | what Hugging Face's `datasets` or its Hub keeps |
    | `flowers.yaml` | a description: where the images are, names, template |
    | `bundled:animals` | drawings inside the package |
    | `{"train": …, "test": …}` | any of these by split |
    | `(images, labels)` | paths, PIL images, arrays |
    | a `Dataset`, a `DatasetDict` | of `datasets` |
    | a data frame | as a table; its images may be paths, PIL images or arrays |
    | an object with `__getitem__`, `__len__`, `classes` | as torchvision has them |

    No image is decoded here. Sources that come without splits have training images only.

    Args:
        source: see above; an `ImageTask` is given back, renamed if names are given.
        template: the sentence that the frozen model reads, with `{}` for the class name; by
            default the source's own, or "a photo of a {}.".
        names: a file (see `load_names`) or a mapping from folders or labels to a name, or to a list
            of a name and its synonyms.
        columns: what the columns "image", "label", "split" and "domain" of a table are called.
        name: what to call the task.
        keep_same_names: whether two classes may come to have one name, as in ImageNet's own list
            ("missile"); they stay two classes, which no text tells apart.

    Returns:
        the task; its `notes` say what was taken for what where the source does not say it.

    Raises:
        PromptotError: with what to do about it.
    """
    task = _load(source, columns, name, keep_same_names)
    if isinstance(source, ImageTask) and names is None:
        return task if template is None else replace(task, template=template)
    return _finish(task, names, template, keep_same_names)


def _finish(
    task: ImageTask,
    names: str | os.PathLike[str] | Mapping[Any, Any] | None,
    template: str | None,
    keep_same_names: bool,
) -> ImageTask:
    """The task with its classes renamed and a template, where these are given."""
    keep_same_names = keep_same_names or task.same_names
    if names is not None:
        read = check_names(names) if isinstance(names, Mapping) else load_names(os.fspath(names))
        task = rename(task, read, keep_same_names=keep_same_names)
    check_task_names(task.class_names, keep=keep_same_names)
    if keep_same_names:
        alike = [name for name, count in Counter(task.class_names).items() if count > 1]
        notes = [
            f"Several classes are called '{name}'. To a text model they are one: it can't prefer "
            "the right one."
            for name in alike
        ]
        notes = [note for note in notes if note not in task.notes]
        task = replace(task, same_names=True, notes=(*task.notes, *notes))
    return task if template is None else replace(task, template=template)


def _load(
    source: Any,
    columns: Mapping[str, str] | None,
    name: str | None,
    keep: bool,
    within: tuple[Path, ...] = (),
) -> ImageTask:
    """The task of a source.

    Args:
        keep: whether two classes may have one name.
        within: the descriptions that it is named in, outermost first.
    """
    if isinstance(source, ImageTask):
        task = source
    elif isinstance(source, str | os.PathLike):
        task = _load_place(os.fspath(source), columns, keep, within)
    elif is_hugging_face(source):
        task = load_hugging_face(source, name or "images", columns)
    elif isinstance(source, Mapping):
        parts = {}
        for split, part in source.items():
            parts[str(split)] = _load(part, columns, str(split), keep, within)
        task = join_splits(parts, name or "images")
    elif isinstance(source, tuple) and len(source) == 2:
        task = load_pairs(*source, name=name or "images")
    elif hasattr(source, "columns") and hasattr(source, "__getitem__"):
        task = load_frame(source, name or "images", columns)
    elif is_data_set(source):
        task = load_data_set(source, name or type(source).__name__)
    else:
        raise PromptotError(f"Images can't be read from {type(source).__name__}.", fix=_ACCEPTED)
    return task if name is None else replace(task, name=name)


def _load_place(
    text: str, columns: Mapping[str, str] | None, keep: bool, within: tuple[Path, ...]
) -> ImageTask:
    if text.startswith(BUNDLED):
        return load_bundled(text.removeprefix(BUNDLED))
    path = Path(text)
    suffix = path.suffix.lower()
    try:
        path.lstat()
    except (OSError, ValueError) as error:  # too long a name, or a null byte in it
        if not isinstance(error, FileNotFoundError | NotADirectoryError):
            reason = getattr(error, "strerror", None) or error
            raise PromptotError(
                f"{brief(text)} can't be read: {reason}.", fix="Check the path."
            ) from None
    name = _name_of(path)
    if path.is_dir():
        return _load_directory(path, name, columns)
    if "{" in path.name or "*" in path.name:
        return _load_pattern(text, columns)
    if not path.exists():
        raise PromptotError(f"The folder '{text}' does not exist.", fix="Check the path.")
    if suffix in _DESCRIPTIONS:
        return _load_described(path, keep, within)
    if suffix in (*TEXT_TABLES, *COLUMN_TABLES):
        return load_table([path], name, columns)
    if suffix in ARCHIVES:
        return _load_archive(path, name)
    if suffix in _COMPRESSED:
        raise PromptotError(
            f"'{text}' can't be read in place.",
            fix="Unpack it, or pack the folder as .zip or .tar.",
        )
    raise PromptotError(f"The folder '{text}' is a file, not a folder.", fix=_ACCEPTED)


def _load_archive(path: Path, name: str) -> ImageTask:
    if path.suffix.lower() != ".tar":
        return load_tree(open_tree(path), name)
    if is_shard(path):
        return load_shards([path], name)
    try:
        task = load_tree(open_tree(path), name)
    except PromptotError:
        check_keys([path])
        raise
    if len(task.class_names) == 1:  # hardly a class folder
        check_keys([path])
    return task


def _load_directory(path: Path, name: str, columns: Mapping[str, str] | None) -> ImageTask:
    if is_saved(path):
        return load_saved(path, name, columns)
    described = load_with_metadata(path, name, columns)
    if described is not None:
        return described
    tables = _visible(path, "*.parquet") or _visible(path, "data/*.parquet")
    if tables:
        return load_table(tables, name, columns)
    if _visible(path, "*.tar") or _visible(path, "*/*.tar"):
        return load_shards(find_shards(str(path)), name)
    return load_folder(path)


def _visible(folder: Path, pattern: str) -> list[Path]:
    """The files that match, sorted, without those that are hidden or junk."""
    return sorted(
        file
        for file in folder.glob(pattern)
        if not is_out_of_the_way(file.relative_to(folder).as_posix())
    )


def _load_pattern(text: str, columns: Mapping[str, str] | None) -> ImageTask:
    paths = find_shards(text)
    name = _name_of(Path(text).parent)
    readers: dict[str, Callable[[], ImageTask]] = {
        ".tar": lambda: load_shards(paths, name),
        ".parquet": lambda: load_table(paths, name, columns),
        ".arrow": lambda: load_table(paths, name, columns),
    }
    kinds = {path.suffix.lower() for path in paths}
    if len(kinds) > 1 or not kinds <= set(readers):
        raise PromptotError(f"'{text}' matches {', '.join(sorted(kinds))} files.", fix=_ACCEPTED)
    return readers[kinds.pop()]()


def _load_described(path: Path, keep: bool, within: tuple[Path, ...]) -> ImageTask:
    own = path.resolve()
    if own in within:
        chain = " → ".join(f"'{place.name}'" for place in (*within[within.index(own) :], own))
        raise PromptotError(
            f"The description '{path}' names itself"
            + (f", through others: {chain}." if within[-1] != own else "."),
            fix="Correct 'data'.",
        )
    if len(within) >= _MOST_DESCRIPTIONS:
        raise PromptotError(
            f"The description '{path}' is one of more than {_MOST_DESCRIPTIONS} that name each "
            "other.",
            fix="Let 'data' say where the images are.",
        )
    described = read_description(path)
    names: Any = described.names
    if isinstance(names, str):
        names = beside(path, names)
    data: Any = described.data
    if isinstance(data, str):
        data = beside(path, data)
    else:
        data = {split: beside(path, place) for split, place in data.items()}
    keep = keep or described.keep_same_names
    task = _load(data, described.columns, described.name or _name_of(path), keep, (*within, own))
    task = _finish(task, names, described.template, keep)
    if described.domain is None:
        return task
    if described.domain not in task.domains:
        raise PromptotError(
            f"'{path}' has no domain '{described.domain}'.",
            fix=f"Its domains are: {', '.join(task.domains) or 'none'}.",
        )
    return task.in_domain(described.domain)


def _name_of(path: Path) -> str:
    stem = path.resolve().name if path.is_dir() else path.stem
    return clean_name(stem) or str(path)
