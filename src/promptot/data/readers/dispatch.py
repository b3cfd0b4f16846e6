"""One function for every source of images."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from promptot.data.catalog.drawings import load_bundled
from promptot.data.class_names import check_task_names
from promptot.data.readers.archive import ARCHIVES
from promptot.data.readers.description import read_description
from promptot.data.readers.folder import load_folder, name_of_place
from promptot.data.readers.hf_datasets import (
    is_hugging_face,
    is_saved,
    load_hugging_face,
    load_saved,
)
from promptot.data.readers.in_memory import is_data_set, load_data_set, load_pairs
from promptot.data.readers.join_splits import join_splits
from promptot.data.readers.junk import visible_files
from promptot.data.readers.metadata import load_with_metadata
from promptot.data.readers.renaming import check_names, load_names, rename
from promptot.data.readers.table import COLUMN_TABLES, TEXT_TABLES, load_frame, load_table
from promptot.data.readers.webdataset import find_shards, load_archive, load_shards
from promptot.data.task import ImageTask
from promptot.errors import PromptotError, use_class_names
from promptot.files.reading import brief

BUNDLED = "bundled:"
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
    class_names: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
    columns: Mapping[str, str] | None = None,
    name: str | None = None,
    keep_same_names: bool = False,
    names: str | os.PathLike[str] | Mapping[Any, Any] | None = None,
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
        class_names: a mapping from folders or labels to a name, or to a list of a name and its
            synonyms; or a file of the same (JSON, YAML, CSV, TSV, or a line a class).
        columns: what the columns "image", "label", "split" and "domain" of a table are called.
        name: what to call the task.
        keep_same_names: whether two classes may come to have one name, as in ImageNet's own list
            ("missile"); they stay two classes, which no text tells apart.
        names: the former name of `class_names`.

    Returns:
        the task; its `notes` say what was taken for what where the source does not say it.

    Raises:
        PromptotError: with what to do about it.
    """
    called = use_class_names(class_names, names)
    task = _Reading(columns, keep_same_names).load(source, name)
    if isinstance(source, ImageTask) and called is None:
        return task if template is None else replace(task, template=template)
    return _finish(task, called, template, keep_same_names)


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
        notes = [
            f"Several classes are called '{name}'. To a text model they are one: it can't prefer "
            "the right one."
            for name, count in Counter(task.class_names).items()
            if count > 1
        ]
        notes = [note for note in notes if note not in task.notes]
        task = replace(task, same_names=True, notes=(*task.notes, *notes))
    return task if template is None else replace(task, template=template)


@dataclass(frozen=True)
class _Reading:
    """How a source is to be read.

    Attributes:
        columns: see `load_task`.
        keep: whether two classes may have one name.
        within: the descriptions that the source is named in, outermost first.
    """

    columns: Mapping[str, str] | None
    keep: bool
    within: tuple[Path, ...] = ()

    def load(self, source: Any, name: str | None) -> ImageTask:
        """The task of a source; by default it is called as the source is."""
        called = name or "images"
        if isinstance(source, ImageTask):
            task = source
        elif isinstance(source, str | os.PathLike):
            task = self._place(os.fspath(source))
        elif is_hugging_face(source):
            task = load_hugging_face(source, called, self.columns)
        elif isinstance(source, Mapping):
            task = join_splits(
                {str(s): self.load(part, str(s)) for s, part in source.items()}, called
            )
        elif isinstance(source, tuple) and len(source) == 2:
            task = load_pairs(*source, name=called)
        elif hasattr(source, "columns") and hasattr(source, "__getitem__"):
            task = load_frame(source, called, self.columns)
        elif is_data_set(source):
            task = load_data_set(source, name or type(source).__name__)
        else:
            raise PromptotError(
                f"Images can't be read from {type(source).__name__}.", fix=_ACCEPTED
            )
        return task if name is None else replace(task, name=name)

    def _place(self, text: str) -> ImageTask:
        if text.startswith(BUNDLED):
            return load_bundled(text.removeprefix(BUNDLED))
        path = Path(text)
        suffix = path.suffix.lower()
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError) as error:  # too long a name, or a null byte in it
            reason = getattr(error, "strerror", None) or error
            problem = f"{brief(text)} can't be read: {reason}."
            raise PromptotError(problem, fix="Check the path.") from None
        name = name_of_place(path)
        if path.is_dir():
            return self._directory(path, name)
        if "{" in path.name or "*" in path.name:
            return self._pattern(text)
        if not path.exists():
            raise PromptotError(f"The folder '{text}' does not exist.", fix="Check the path.")
        if suffix in (".yaml", ".yml"):
            return self._described(path)
        if suffix in (*TEXT_TABLES, *COLUMN_TABLES):
            return load_table([path], name, self.columns)
        if suffix in ARCHIVES:
            return load_archive(path, name)
        if suffix in _COMPRESSED:
            fix = "Unpack it, or pack the folder as .zip or .tar."
            raise PromptotError(f"'{text}' can't be read in place.", fix=fix)
        raise PromptotError(f"The folder '{text}' is a file, not a folder.", fix=_ACCEPTED)

    def _directory(self, path: Path, name: str) -> ImageTask:
        if is_saved(path):
            return load_saved(path, name, self.columns)
        described = load_with_metadata(path, name, self.columns)
        if described is not None:
            return described
        tables = visible_files(path, "*.parquet") or visible_files(path, "data/*.parquet")
        if tables:
            return load_table(tables, name, self.columns)
        if visible_files(path, "*.tar") or visible_files(path, "*/*.tar"):
            return load_shards(find_shards(str(path)), name)
        return load_folder(path)

    def _pattern(self, text: str) -> ImageTask:
        paths = find_shards(text)
        name = name_of_place(Path(text).parent)
        kinds = {path.suffix.lower() for path in paths}
        if kinds == {".tar"}:
            return load_shards(paths, name)
        if kinds in ({".parquet"}, {".arrow"}):
            return load_table(paths, name, self.columns)
        matched = ", ".join(sorted(kinds))
        raise PromptotError(f"'{text}' matches {matched} files.", fix=_ACCEPTED)

    def _described(self, path: Path) -> ImageTask:
        own = path.resolve()
        if own in self.within:
            chain = (*self.within[self.within.index(own) :], own)
            shown = " → ".join(f"'{place.name}'" for place in chain)
            through = f", through others: {shown}." if len(chain) > 2 else "."
            raise PromptotError(
                f"The description '{path}' names itself{through}", fix="Correct 'data'."
            )
        if len(self.within) >= _MOST_DESCRIPTIONS:
            raise PromptotError(
                f"The description '{path}' is one of more than {_MOST_DESCRIPTIONS} that name each "
                "other.",
                fix="Let 'data' say where the images are.",
            )
        described = read_description(path)
        keep = self.keep or described.keep_same_names
        reading = _Reading(described.columns, keep, (*self.within, own))
        task = reading.load(described.data, described.name or name_of_place(path))
        task = _finish(task, described.names, described.template, keep)
        if described.domain is None:
            return task
        if described.domain not in task.domains:
            raise PromptotError(
                f"'{path}' has no domain '{described.domain}'.",
                fix=f"Its domains are: {', '.join(task.domains) or 'none'}.",
            )
        return task.in_domain(described.domain)
