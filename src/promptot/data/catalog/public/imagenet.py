"""ImageNet's folders ("n01440764") and the names that CLIP gives their classes."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from promptot.data.class_names import clean_name
from promptot.errors import PromptotError
from promptot.files.reading import read_text, reading_errors, text_lines

NAMES = "classnames.txt"
"""A file of class names in a data set's folder."""


@cache
def imagenet_folders() -> tuple[str, ...]:
    """The 1,000 folders of ImageNet (WordNet numbers), in the order of its labels.

    Example:
        >>> imagenet_folders()[:2]
        ('n01440764', 'n01443537')
    """
    from timm.data import ImageNetInfo

    return tuple(ImageNetInfo().label_names())


@cache
def clip_names() -> dict[str, str]:
    """Folder -> the name that CLIP's authors chose for its class, as open_clip ships them.

    Two pairs of classes share a name ("missile", "sunglasses"), as in the published runs.

    Example:
        >>> clip_names()["n01440764"]
        'tench'
    """
    from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

    return dict(zip(imagenet_folders(), map(clean_name, IMAGENET_CLASSNAMES), strict=True))


def read_names(places: Sequence[Path]) -> dict[str, str]:
    """Folder -> class name, from the first `classnames.txt` that exists, or else CLIP's.

    Args:
        places: folders to look into.

    Raises:
        PromptotError: a line is not "<folder> <name>".
    """
    path = next((place / NAMES for place in places if (place / NAMES).is_file()), None)
    if path is None:
        return clip_names()
    names = {}
    with reading_errors(f"Can't read '{path}'", "Remove it or repair it."):
        lines = text_lines(read_text(path))
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        folder, _, name = line.strip().partition(" ")
        if not name.strip():
            raise PromptotError(
                f"Line {number} of '{path}' has no class name.",
                fix="Each line is a folder, a blank and a name: 'n01440764 tench'.",
            )
        names[folder] = clean_name(name)
    return names
