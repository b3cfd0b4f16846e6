"""WebDataset shards: tar files in which the files of one sample share a name and follow each other.

`0001.jpg` and `0001.cls` are a sample; the label may stand in `.cls` (a number or a name), in
`.txt` (a name) or in `.json` (as "label", "class" or "class_name"). Tar files are read in place.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

from promptot.errors import PromptotError
from promptot.reading import Unreadable, decode, parse_json, read_text, text_lines
from promptot.tasks.containers import open_bytes
from promptot.tasks.dataset import ImageTask
from promptot.tasks.images import is_image_name
from promptot.tasks.sources.found import SPLITS, Found, assemble
from promptot.tasks.sources.table import COLUMNS, split_in_name
from promptot.tasks.sources.tree import list_members

CLASS_NAMES = ("classnames.txt", "classes.txt")
"""Files beside the shards, or above, that name the labels 0, 1, …, one a line."""

_LABELS = (".cls", ".json", ".txt")
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS = 100_000
_LONGEST_LABEL = 1 << 20
"""Bytes of the file that holds a sample's label; captions and settings may stand beside it."""


def is_shard(path: Path) -> bool:
    """Whether a tar file holds samples, and not a folder of class folders."""
    stems: dict[str, set[str]] = {}
    for member in list_members(path):
        stem, suffix = _split_name(member)
        stems.setdefault(stem, set()).add(suffix)
    return any(_labels_in(suffixes) and _image_in(suffixes) for suffixes in stems.values())


def find_shards(place: str) -> list[Path]:
    """The files that "shards-{000..012}.tar", "shards/*.tar" or a folder stands for, in order.

    Raises:
        PromptotError: there is none.
    """
    if Path(place).is_dir():
        found = sorted(path for path in Path(place).rglob("*.tar") if path.is_file())
    else:
        found = [Path(match) for text in _expand(place) for match in _matches(text)]
    if not found:
        raise PromptotError(f"No shard matches '{place}'.", fix="Check the path.")
    return found


def load_shards(paths: Sequence[Path], name: str) -> ImageTask:
    """Read WebDataset shards.

    A shard in a folder `train`, `val` or `test`, or whose own name starts so, is of that split.

    Raises:
        PromptotError: a shard is damaged, or no sample has an image and a label.
    """
    found = [sample for path in paths for sample in _samples(path)]
    return assemble(name, found, _label_names(paths[0]))


def _samples(path: Path) -> Iterator[Found]:
    folder = path.parent.name.casefold()
    split = split_in_name(path.stem) or (folder if folder in SPLITS else "")
    samples: dict[str, dict[str, str]] = {}
    for member in list_members(path):
        stem, suffix = _split_name(member)
        samples.setdefault(stem, {})[suffix] = member
    for suffixes in samples.values():
        image = _image_in(suffixes)
        if image is None:
            continue
        kind = _labels_in(suffixes)
        label = None if kind is None else _read_label(f"{path}::{suffixes[kind]}", kind)
        yield Found(f"{path}::{suffixes[image]}", label, split)


def _read_label(place: str, kind: str) -> Any:
    try:
        with open_bytes(place) as file:
            content = file.read(_LONGEST_LABEL + 1)
        if len(content) > _LONGEST_LABEL:
            return None
        text = decode(content).strip()
        if kind != ".json":
            return text
        values = parse_json(text, allow_nan=True)
        keys = ("cls", *COLUMNS["label"])
        label = next((values[key] for key in keys if key in values), None)
        return label if isinstance(label, str | int | float) else None
    except (PromptotError, OSError, ValueError, TypeError):
        return None  # the image is listed as one without a label


def _split_name(member: str) -> tuple[str, str]:
    """A sample's name, and the rest from the first dot of the file's name on."""
    path = PurePosixPath(member)
    stem, dot, rest = path.name.partition(".")
    return str(path.parent / stem), f"{dot}{rest}".lower()


def _image_in(suffixes: Any) -> str | None:
    return next((s for s in sorted(suffixes) if is_image_name(f"a{s}")), None)


def _labels_in(suffixes: Any) -> str | None:
    return next((suffix for suffix in _LABELS if suffix in suffixes), None)


def _label_names(shard: Path) -> list[str] | None:
    for folder in (shard.parent, shard.parent.parent):
        for file in CLASS_NAMES:
            if (folder / file).is_file():
                try:
                    lines = text_lines(read_text(folder / file))
                except Unreadable as error:
                    raise PromptotError(
                        f"The class names in '{folder / file}' can't be read: {error}.",
                        fix="Save it as UTF-8 text with one name a line, or remove it.",
                    ) from error
                return [line.strip() for line in lines if line.strip()]
    return None


def _expand(text: str) -> list[str]:
    """A pattern without its {first..last}, as many as there are numbers, counted beforehand."""
    ranges = list(_NUMBERS.finditer(text))
    count = 1
    for found in ranges:
        if max(len(found[1]), len(found[2])) > 18:
            count = _MOST_SHARDS + 1
            break
        count *= max(0, int(found[2]) - int(found[1]) + 1)
    if count > _MOST_SHARDS:
        raise PromptotError(
            f"'{text:.200}' stands for too many files, more than {_MOST_SHARDS:,}.",
            fix="Check the numbers.",
        )
    pieces = _NUMBERS.split(text)[::3]  # without the two numbers between them
    made = [pieces[0]]
    for found, piece in zip(ranges, pieces[1:], strict=True):
        first, last, width = int(found[1]), int(found[2]), len(found[1])
        numbers = [f"{number:0{width}}" for number in range(first, last + 1)]
        made = [f"{head}{number}{piece}" for head in made for number in numbers]
    return made


def _matches(text: str) -> list[str]:
    if Path(text).is_file():
        return [text]
    return sorted(glob(text, recursive=True))  # noqa: PTH207 - may be absolute
