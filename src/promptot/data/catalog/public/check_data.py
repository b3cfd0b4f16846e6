"""What of the public data is there, what is missing and where it comes from, what does not fit."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from promptot.data.catalog.public.imagenet import NAMES
from promptot.data.catalog.public.load_public import PublicTask, load_public
from promptot.data.catalog.public.public_sets import PartSource, PublicSet
from promptot.data.task import Progress
from promptot.errors import PromptotError
from promptot.files.reading import (
    Unreadable,
    open_regular,
    read_text,
    reading_errors,
    text_lines,
)


@dataclass(frozen=True, eq=False)
class SetCheck:
    """The state of one data set.

    Attributes:
        public_set: what it should be.
        found: what is there; None where it can't be used at all.
        missing: what has to be fetched.
        problems: why it can't be used, a sentence each.
        differences: what does not agree with the published figures, a sentence each.
        notes: what to know of it.
    """

    public_set: PublicSet
    found: PublicTask | None
    missing: tuple[PartSource, ...] = ()
    problems: tuple[str, ...] = ()
    differences: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """ready, other counts (than published), damaged or missing."""
        if self.found is None:
            return "missing" if self.missing else "damaged"
        if self.problems:
            return "damaged"
        return "other counts" if self.differences else "ready"

    def as_json(self) -> dict[str, Any]:
        """The same as plain values."""
        task = None if self.found is None else self.found.task
        return {
            "name": self.public_set.name,
            "key": self.public_set.key,
            "folder": self.public_set.folder,
            "state": self.state,
            "published_split": self.found is not None and self.found.published_split,
            "classes": 0 if task is None else len(task.class_names),
            "images": {} if task is None else {s: len(own) for s, own in task.splits.items()},
            "missing": [source.model_dump() for source in self.missing],
            "problems": list(self.problems),
            "differences": list(self.differences),
            "notes": list(self.notes),
        }


def check_set(public_set: PublicSet, root: str | Path) -> SetCheck:
    """Look at one data set: its folders and lists, every listed image, and the published counts."""
    own = Path(root) / public_set.folder
    missing = _missing(public_set, own)
    if missing:
        return SetCheck(public_set, None, missing)
    try:
        found = load_public(public_set.key, root)
    except PromptotError as error:
        return SetCheck(public_set, None, problems=(str(error),))
    absent = _absent_images(found)
    such = ", ".join(f"'{path}'" for path in absent[:3])
    problems = [f"{len(absent)} listed images are not there, such as {such}."] if absent else []
    notes = []
    if not found.published_split:
        notes.append(
            f"Without {public_set.split} the splits are drawn here: figures do not compare with "
            "published ones."
        )
    named = any((Path(root) / place / NAMES).is_file() for place in (public_set.folder, "imagenet"))
    if public_set.layout.startswith("imagenet") and not named:
        notes.append("Without classnames.txt the class names are those that open_clip ships.")
    return SetCheck(public_set, found, (), tuple(problems), differences(found), tuple(notes))


def differences(found: PublicTask) -> tuple[str, ...]:
    """Where the number of classes or of test images is not the published one."""
    public_set, task = found.public_set, found.task
    classes = len(task.class_names)
    per_class = Counter(example.label for example in task.test)
    base = sum(count for label, count in per_class.items() if label < (classes + 1) // 2)
    counts = {"base": base, "novel": len(task.test) - base, "all": len(task.test)}
    differing = [
        f"{counts[part]} test images of {part} classes; published: {published}."
        for part, published in public_set.test_images.items()
        if counts[part] != published
    ]
    if classes != public_set.classes:
        differing.insert(0, f"{classes} classes; published: {public_set.classes}.")
    return tuple(differing)


def check_sums(path: str | Path, root: str | Path, progress: Progress | None = None) -> list[str]:
    """Compare files with the checksums of a list, as `sha256sum` and `md5sum` write it.

    Args:
        path: the list: "<hex digits>  <path below root>" a line.
        root: the folder that holds all data sets.
        progress: told after each file.

    Returns:
        a sentence for each file that is missing or differs.

    Raises:
        PromptotError: the list can't be read.
    """
    with reading_errors(f"Can't read '{path}'", "Check the path."):
        lines = text_lines(read_text(path))
    wanted = []
    for number, line in enumerate(lines, start=1):
        digest, _, name = line.strip().partition(" ")
        if not line.strip() or line.startswith("#"):
            continue
        kind = {64: "sha256", 40: "sha1", 32: "md5"}.get(len(digest))
        if kind is None or not name.strip():
            problem = f"Line {number} of '{path}' is no checksum."
            raise PromptotError(problem, fix="Write '<sha256>  <path>'.")
        wanted.append((kind, digest.lower(), name.strip().removeprefix("*")))
    wrong = []
    for done, (kind, digest, name) in enumerate(wanted, start=1):
        try:
            with open_regular(Path(root) / name) as file:
                own = hashlib.file_digest(file, partial(hashlib.new, kind, usedforsecurity=False))
            if own.hexdigest() != digest:
                wrong.append(f"'{name}' has the {kind} {own.hexdigest()}, not {digest}.")
        except (Unreadable, OSError) as error:
            wrong.append(f"'{name}' can't be read: {getattr(error, 'strerror', None) or error}.")
        if progress is not None:
            progress("checksums", done, len(wanted))
    return wrong


def _missing(public_set: PublicSet, own: Path) -> tuple[PartSource, ...]:
    """What has to be fetched: images, and either the split file or all annotations."""

    def absent(part: str) -> list[PartSource]:
        return [s for s in public_set.sources if s.part == part and not (own / s.place).exists()]

    images, split, annotations = absent("images"), absent("split"), absent("annotations")
    has_annotations = any(source.part == "annotations" for source in public_set.sources)
    if public_set.split is None:
        return (*images, *annotations)
    if not split or (has_annotations and not annotations):
        return tuple(images)
    if has_annotations or images:
        return (*images, *split)
    return ()  # class folders, which are divided here


def _absent_images(found: PublicTask) -> list[str]:
    """The listed images that are not there, by one listing a folder."""
    if found.public_set.layout.startswith("imagenet"):
        return []  # the lists were made from the folders
    present: dict[str, set[str]] = {}
    absent = []
    for example in found.task.examples:
        folder, _, name = example.path.rpartition("/")
        if folder not in present:
            present[folder] = set()
            with contextlib.suppress(OSError):
                present[folder] |= set(os.listdir(folder))  # noqa: PTH208 - names, not paths
        if name not in present[folder]:
            absent.append(example.path)
    return absent
