"""What is known of each public data set: where it lies, who its classes are, what was published."""

from __future__ import annotations

from functools import cache
from importlib.resources import files
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from promptot.errors import PromptotError, nearest
from promptot.files.yaml_text import parse_yaml

Layout = Literal[
    "class-folders", "pets", "cars", "flowers", "aircraft", "sun", "ucf",
    "imagenet", "imagenet-folders", "imagenet-indices",
]  # fmt: skip
"""How a data set says which image belongs where, without a split file."""

_SHIPPED = files("promptot.data.catalog.public").joinpath("sets")


class _SetFile(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class PartSource(_SetFile):
    """Something that has to be there, and where it comes from.

    Attributes:
        part: images are always needed; either the split file or the annotations; names never.
        place: file or folder below the data set's own.
        url: the official page.
        note: which file of that page, and what becomes of it.
    """

    part: Literal["images", "split", "annotations", "names"]
    place: str
    url: str
    note: str = ""


class PublicSet(_SetFile):
    """What is known of one public data set, as its YAML file gives them.

    Attributes:
        key: the name of that file.
        name: in tables, as published.
        folder: below the root of all data.
        images: folder below it that paths in split files start from.
        split: the community's split file; None where the original splits are used.
        template: the sentence that CLIP reads of a class.
        layout: how classes and splits are found without the split file.
        ignored, renamed: class folders that don't count, or whose class has another name.
        domain: whether it only tests a model that was adapted to ImageNet.
        classes, test_images: as published; the test images of base and novel classes, or of all.
        sources: what has to be there.
    """

    key: str
    name: str
    folder: str
    images: str
    split: str | None = None
    template: str
    layout: Layout
    ignored: Annotated[list[str], Field(default_factory=list)]
    renamed: Annotated[dict[str, str], Field(default_factory=dict)]
    domain: bool = False
    classes: int
    test_images: dict[str, int]
    sources: list[PartSource]


@cache
def public_sets() -> dict[str, PublicSet]:
    """Key -> data set, in alphabetical order.

    Example:
        >>> public_sets()["dtd"].template
        '{} texture.'
    """
    found = {}
    for entry in sorted(_SHIPPED.iterdir(), key=lambda entry: entry.name):
        if entry.name.endswith(".yaml"):
            key = entry.name.removesuffix(".yaml")
            values = parse_yaml(entry.read_text(encoding="utf-8"))
            found[key] = PublicSet.model_validate({"key": key, **values})
    return found


def find_set(name: str) -> PublicSet:
    """A data set by its key, name or folder; case, hyphens and underscores are ignored.

    Raises:
        PromptotError: there is none of that name.

    Example:
        >>> find_set("Oxford-Pets").key
        'oxford_pets'
    """
    wanted = _bare(name)
    for known in public_sets().values():
        if wanted in (_bare(known.key), _bare(known.name), _bare(known.folder)):
            return known
    raise PromptotError(f"No public data set '{name}'.", fix=nearest(name, public_sets()))


def _bare(name: str) -> str:
    return name.casefold().replace("-", "").replace("_", "")
