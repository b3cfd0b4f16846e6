"""Images in memory: lists and arrays with labels, and data sets as torchvision has them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from os import PathLike
from typing import Any

from promptot.data.images.in_memory_image import InMemoryImage
from promptot.data.readers.columns import choose_columns
from promptot.data.readers.labelled_images import (
    LabelledImage,
    assemble,
    by_number,
    in_memory,
    list_images,
)
from promptot.data.task import ImageTask
from promptot.errors import PromptotError

_LABEL_ATTRIBUTES = ("targets", "labels", "_labels", "y")


def load_pairs(images: Any, labels: Any, name: str = "images") -> ImageTask:
    """Images and their labels, both in memory (or paths of images).

    Args:
        images: N paths, PIL images, arrays [H, W, C] or a batch of them [N, H, W, C]; see
            `ImageLike`.
        labels: N class names or numbers.

    Raises:
        PromptotError: there are more of one than of the other, or none.
    """
    return assemble(name, pair(images, labels, name))


def pair(images: Any, labels: Any, name: str = "images") -> list[LabelledImage]:
    """Images in memory with a label each, as `load_pairs` takes them.

    Raises:
        PromptotError: as there.
    """
    images, labels = as_sequence(images), list(labels)
    if len(images) != len(labels):
        raise PromptotError(
            f"There are {len(images)} images and {len(labels)} labels.",
            fix="Give one label per image.",
        )
    held = in_memory(images, name)

    def place(row: int) -> str | tuple[str, InMemoryImage]:
        image = images[row]
        return str(image) if isinstance(image, str | PathLike) else held(row)

    return list_images(labels, place)


def as_sequence(images: Any) -> Any:
    """What has a length and positions: a table's only column of images becomes a list.

    Raises:
        PromptotError: it is one image, text, or nothing with a length.
    """
    if hasattr(images, "columns"):  # a data frame
        header = [str(column) for column in images.columns]
        if len(header) != 1:
            header = [choose_columns(header, "the table", needed=("image",))["image"]]
        return list(images[header[0]])
    if isinstance(images, str | bytes) or not hasattr(images, "__len__"):
        raise PromptotError(
            f"Images are expected in a list or an array, not as {type(images).__name__}.",
            fix="Put a single image into a list: [image].",
        )
    shape = getattr(images, "shape", None)
    if shape is not None and len(shape) == 2:
        if str(getattr(images, "dtype", "")) != "object":
            raise PromptotError(
                "An array of rows × columns is one grey image, or a table of numbers, but no "
                "batch.",
                fix="Give images × height × width × channels, or a list of images.",
            )
        return [row[0] for row in images]  # a column of paths or images
    return list(images) if hasattr(images, "iloc") else images


def is_data_set(source: Any) -> bool:
    """Whether it gives (image, label) by position, as the data sets of torchvision do."""
    by_position = hasattr(source, "__getitem__") and hasattr(source, "__len__")
    return by_position and not isinstance(source, str | bytes | dict)


def load_data_set(source: Any, name: str) -> ImageTask:
    """A data set with `__getitem__` giving (image, label), `__len__` and perhaps `classes`.

    Labels are taken from its `samples`, `targets` or `labels` if it has them; otherwise every image
    is fetched once. Images that lie in files (`samples`, `imgs`) are read from there, without the
    data set's transform; others must come as PIL images, arrays or tensors that are not normalised.

    Raises:
        PromptotError: it gives something else.
    """
    return by_number(assemble(name, list_data_set(source, name), class_names_of(source)))


def class_names_of(source: Any) -> Sequence[str] | None:
    """The data set's `classes`, or those of the one it is a part of (torch's `Subset`)."""
    names = getattr(source, "classes", None)
    if names is None and hasattr(source, "dataset"):
        return class_names_of(source.dataset)
    # Some data sets give several names for a class.
    return None if names is None else [n if isinstance(n, str) else n[0] for n in names]


def list_data_set(source: Any, name: str) -> list[LabelledImage]:
    """The images of a data set, as `load_data_set` takes them."""
    if hasattr(source, "indices") and hasattr(source, "dataset"):  # torch's `Subset`
        whole = list_data_set(source.dataset, name)
        return [whole[int(index)] for index in source.indices]
    as_is = getattr(source, "target_transform", None) is None
    samples = getattr(source, "samples", None) or getattr(source, "imgs", None)
    if as_is and samples and all(isinstance(s, tuple) and isinstance(s[0], str) for s in samples):
        return [LabelledImage(path, label) for path, label, *_ in samples]
    known = (getattr(source, key, None) for key in _LABEL_ATTRIBUTES if as_is)
    labels = next((values for values in known if _fits(values, source)), None)
    if labels is None:
        labels = [_pair(source, index, name)[1] for index in range(len(source))]
    return list_images(labels, in_memory(_Images(source, name), name))


@dataclass(frozen=True, eq=False)
class _Images:
    """The images alone."""

    source: Any
    name: str

    def __getitem__(self, index: int) -> Any:
        return _pair(self.source, index, self.name)[0]


def _pair(source: Any, index: int, name: str) -> tuple[Any, Any]:
    item = source[index]
    if not isinstance(item, tuple | list) or len(item) < 2:
        raise PromptotError(
            f"'{name}' gives {type(item).__name__} at position {index}, not (image, label).",
            fix="Its __getitem__ should give an image and its label.",
        )
    return item[0], item[1]


def _fits(labels: Any, source: Any) -> bool:
    return hasattr(labels, "__len__") and len(labels) == len(source)
