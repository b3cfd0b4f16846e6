"""What to say of a folder of class folders that may have been meant otherwise."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from promptot.data.readers.split_words import split_of
from promptot.errors import listed

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Tables that belong to the folder which they lie in, as Hugging Face's image folders have them."""


def layout_notes(
    folders: Mapping[str, Sequence[Any]],
    look_into: Callable[[Any], tuple[list[str], bool]],
) -> list[str]:
    """A sentence where class folders look like domains, or hold folders called as splits.

    Args:
        folders: by split the folders that were taken for classes.
        look_into: gives of a folder the names of the folders with images in it, and whether it has
            images of its own.
    """
    tops = {str(folder.name): look_into(folder) for own in folders.values() for folder in own}
    inner = {name: inside for name, (inside, own) in tops.items() if inside and not own}
    if len(inner) < 2 or len(inner) < len(tops):
        return []
    counts = Counter(name.casefold() for inside in inner.values() for name in set(inside))
    if all(split_of(name) for name in counts):
        return [
            f"The folders {_some(counts)} inside the class folders were not taken for splits: "
            f"put them above the class folders; or, if {_some(inner)} are no classes, but data "
            "of their own, give each by itself."
        ]
    shared = [name for name, count in counts.items() if count > 1]
    if 2 * len(shared) < len(counts) or len(shared) < 2:
        return []
    places = [str(folder) for own in folders.values() for folder in own if folder.name in inner]
    some = ",".join(places[:3]) + (",…" if len(places) > 3 else "")
    return [
        f"The folders {_some(inner)} were taken for the classes, but hold the same folders "
        f"({_some(shared)}). If they are domains, and these are the classes: `promptot benchmark "
        f"domain-generalization --tasks {some}` trains on one and tests the others; for anything "
        "else write a table with the columns path, label and domain."
    ]


def _some(names: Collection[str]) -> str:
    return listed(names, 3, width=60, counted=False)
