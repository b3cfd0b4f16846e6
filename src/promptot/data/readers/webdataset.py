"""WebDataset shards: tar files in which the files of one sample share a name and follow each other.

`0001.jpg` and `0001.cls` are a sample: the name that they share, its key, ends at the first dot of
the file's name. The label may stand in `.cls` (a number or a name), in `.txt` (a name) or in
`.json` (as "label", "class" or "class_name"). Tar files are read in place.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from glob import glob
from pathlib import Path, PurePosixPath
from typing import Any

from promptot.data.images.image_bytes import open_bytes
from promptot.data.images.read_image import IMAGE_SUFFIXES, is_image_name
from promptot.data.readers.archive import list_members, open_tree
from promptot.data.readers.columns import COLUMNS
from promptot.data.readers.folder import load_tree
from promptot.data.readers.junk import is_out_of_the_way, visible_files
from promptot.data.readers.labelled_images import LabelledImage, assemble, with_notes
from promptot.data.readers.split_words import split_in_name, split_of
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.files.reading import decode, parse_json, read_text, reading_errors

CLASS_NAMES = ("classnames.txt", "classes.txt")
"""Files beside the shards, or above, that name the labels 0, 1, …, one a line."""

_LABELS = (".cls", ".json", ".txt")
_NUMBERS = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST_SHARDS, _MOST_DIGITS = 100_000, 18
_LONGEST_LABEL = 1 << 20
"""Bytes of the file that holds a sample's label; captions and settings may stand beside it."""


def is_shard(path: Path) -> bool:
    """Whether a tar file holds samples, and not a folder of class folders."""
    return any(_labels_in(own) and _image_in(own) for own in _by_key(path).values())


def check_keys(paths: Sequence[Path]) -> None:
    """Refuse shards whose samples are told apart only behind the first dot of their files' names.

    Raises:
        PromptotError: they are such; it says what to rename.
    """
    for path in paths:
        for key, own in _by_key(path).items():
            samples = [] if _labels_in(own) or set(own) & IMAGE_SUFFIXES else _dotted(own)
            if samples:
                count = f"{len(samples)} samples share" if len(samples) > 1 else "a sample has"
                name, better = f"{key}{samples[0]}", f"{key}{samples[0].replace('.', '-')}"
                raise PromptotError(
                    f"In the shard '{path}' {count} the key '{key}': in WebDataset a key ends at "
                    f"the first dot of the file's name, and here names go on, as '{name}' does.",
                    fix=f"Rename the files so that only their ending follows a dot: '{better}'.",
                )


def find_shards(place: str) -> list[Path]:
    """The files that "shards-{000..012}.tar", "shards/*.tar" or a folder stands for, in order.

    Raises:
        PromptotError: there is none.
    """
    if Path(place).is_dir():
        shards = [path for path in visible_files(Path(place), "**/*.tar") if path.is_file()]
    else:
        shards = [Path(match) for text in _expand(place) for match in _matches(text)]
    if not shards:
        raise PromptotError(f"No shard matches '{place}'.", fix="Check the path.")
    return shards


def load_shards(paths: Sequence[Path], name: str) -> ImageTask:
    """Read WebDataset shards.

    A shard in a folder that is called as a split (see `split_words`), or whose own name starts so,
    is of that split.

    Raises:
        PromptotError: a shard is damaged, no sample has an image and a label, or keys have dots.
    """
    check_keys(paths)
    kinds: Counter[str] = Counter()
    samples = [sample for path in paths for sample in _samples(path, kinds)]
    where = "the names of the shards and their folders"
    task = assemble(name, samples, _label_names(paths[0]), splits_from=where)
    return with_notes(task, *_of_kinds(kinds, task))


def load_archive(path: Path, name: str) -> ImageTask:
    """Read a zip or tar file: WebDataset's samples if it holds such, or else folders of classes.

    Raises:
        PromptotError: it is damaged, or holds neither.
    """
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


def _samples(path: Path, kinds: Counter[str]) -> Iterator[LabelledImage]:
    """The samples of a shard; `kinds` counts what their labels and images are read from."""
    split = split_in_name(path.stem) or split_of(path.parent.name) or ""
    for own in _by_key(path).values():
        image = _image_in(own)
        if image is None:
            continue
        kind = _labels_in(own)
        label = None if kind is None else _read_label(f"{path}::{own[kind]}", kind)
        kinds[kind or ""] += 1
        if sum(is_image_name(f"a{suffix}") for suffix in own) > 1:
            kinds[f"{image} of several"] += 1
        yield LabelledImage(f"{path}::{own[image]}", label, split)


def _of_kinds(kinds: Counter[str], task: ImageTask) -> list[str]:
    """What to say of labels that are read from texts, and of samples with several images."""
    notes = []
    if kinds[".txt"]:
        notes.append(
            f"Labels are read from .txt files: each text is taken for a class, "
            f"{len(task.class_names)} in all."
        )
    several = {kind.split()[0]: count for kind, count in kinds.items() if " " in kind}
    for suffix, count in several.items():
        notes.append(f"Of {count} samples with several images '{suffix}' was taken.")
    return notes


def _by_key(path: Path) -> dict[str, dict[str, str]]:
    """The files of each sample of a shard by their suffixes."""
    samples: dict[str, dict[str, str]] = {}
    for member in list_members(path):
        if not is_out_of_the_way(member):
            key, suffix = _split_name(member)
            samples.setdefault(key, {})[suffix] = member
    return samples


def _dotted(own: Mapping[str, str]) -> list[str]:
    """What stands between the key and the endings of an image and its label, such as ".05"."""
    heads = {suffix[: -len(kind)] for kind in _LABELS for suffix in own if suffix.endswith(kind)}
    images = {suffix[: suffix.rindex(".")] for suffix in own if is_image_name(f"a{suffix}")}
    return sorted((heads & images) - {""})


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
    """The image of a sample; of several one whose ending is plain, `.jpg` before `.a.png`."""
    images = [suffix for suffix in suffixes if is_image_name(f"a{suffix}")]
    return min(images, key=lambda suffix: (suffix.count("."), suffix), default=None)


def _labels_in(suffixes: Any) -> str | None:
    return next((suffix for suffix in _LABELS if suffix in suffixes), None)


def _label_names(shard: Path) -> list[str] | None:
    folders = (shard.parent, shard.parent.parent)
    files = (folder / file for folder in folders for file in CLASS_NAMES)
    return next((_read_class_names(file) for file in files if file.is_file()), None)


def _read_class_names(path: Path) -> list[str]:
    """The names of the labels 0, 1, …, one a line; they may hold anything but a line's end.

    Raises:
        PromptotError: the file can't be read, or a line before the last name is blank.
    """
    fix = "Save it as UTF-8 text with one name a line, or remove it."
    with reading_errors(f"The class names in '{path}' can't be read", fix):
        lines = [line.strip() for line in read_text(path).split("\n")]
    while lines and not lines[-1]:
        lines.pop()
    if "" in lines:
        label = lines.index("")
        raise PromptotError(
            f"Line {label + 1} of '{path}' is blank, where the name of label {label} is expected.",
            fix="Write the name, or remove the line: names are numbered by their lines.",
        )
    return lines


def _expand(text: str) -> list[str]:
    """A pattern without its {first..last}, as many as there are numbers, counted beforehand."""
    pieces = _NUMBERS.split(text)  # a text, then the two numbers and the text behind them, again
    bounds = list(zip(pieces[1::3], pieces[2::3], strict=True))
    short = all(len(number) <= _MOST_DIGITS for pair in bounds for number in pair)
    numbers = [range(int(first), int(last) + 1) for first, last in bounds] if short else []
    if not short or math.prod(map(len, numbers)) > _MOST_SHARDS:
        raise PromptotError(
            f"'{text:.200}' stands for too many files, more than {_MOST_SHARDS:,}.",
            fix="Check the numbers.",
        )
    made = [pieces[0]]
    for (first, _), own, piece in zip(bounds, numbers, pieces[3::3], strict=True):
        written = [f"{number:0{len(first)}}{piece}" for number in own]
        made = [head + tail for head in made for tail in written]
    return made


def _matches(text: str) -> list[str]:
    if Path(text).is_file():
        return [text]
    return sorted(glob(text, recursive=True))  # noqa: PTH207 - may be absolute
