"""How people write the splits of a data set, in the names of folders and files and in tables."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from promptot.errors import listed

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""The words for each split, lower case."""

TAKEN = "Splits are taken from"
_BETWEEN_WORDS = re.compile(r"[-._ \d]+")


def split_of(word: str) -> str | None:
    """The split that a word stands for, in any case; None if it is none of `SPLITS`.

    Example:
        >>> split_of("Testing"), split_of("dev"), split_of("testimony")
        ('test', 'validation', None)
    """
    return SPLITS.get(word.strip().casefold())


def split_among_words(name: str) -> str | None:
    """The one split that a name of several words holds; None if it holds none, or two.

    Example:
        >>> [split_among_words(name) for name in ("seg_train", "val2017", "trains")]
        ['train', 'validation', None]
    """
    found = {split_of(word) for word in _BETWEEN_WORDS.split(name)} - {None}
    return found.pop() if len(found) == 1 else None


def split_in_name(stem: str) -> str:
    """The split that a file's name starts with, such as "train-00000-of-00002"; "" if none.

    Example:
        >>> split_in_name("test-00000-of-00001"), split_in_name("Validation"), split_in_name("x")
        ('test', 'validation', '')
    """
    return split_of(_BETWEEN_WORDS.split(stem.strip())[0]) or ""


def common_splits(paths: Sequence[Sequence[str]]) -> list[str] | None:
    """The word for a split among each path's folders, at one depth for all; None if there is none.

    A class, or the folder that all images lie in, may be called as a split. So every path must have
    such a folder at that depth, and they must be of two splits at least.

    Args:
        paths: the folders of each, outermost first.

    Example:
        >>> common_splits([["images", "train", "a"], ["images", "Test", "a"]])
        ['train', 'Test']
        >>> common_splits([["train"], ["bus"]])
    """
    for depth in range(min(map(len, paths), default=0)):
        words = [folders[depth] for folders in paths]
        splits = set(map(split_of, words))
        if None not in splits and len(splits) > 1:
            return words
    return None


def taken_for(written: Mapping[str, str], where: str) -> str:
    """A sentence that says which words were taken for which split.

    Args:
        written: the split of each word, as it is written.
        where: they were found, such as "the folders".

    Example:
        >>> taken_for({"Training": "train", "dev": "validation"}, "the folders")
        "Splits are taken from the folders: 'Training' as train, 'dev' as validation."
    """
    shown = [f"'{word:.60}' as {split}" for word, split in written.items()]
    return f"{TAKEN} {where}: {listed(shown, 10, quoted=False)}."
