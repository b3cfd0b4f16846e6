"""Where images and class names come from: every kind of source, shots and splits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptot.data.catalog.drawings import (
        list_groups,
        list_styles,
        load_bundled,
        load_bundled_others,
    )
    from promptot.data.dividing import split_examples
    from promptot.data.images.read_image import UnreadableImage, load_image
    from promptot.data.loader import Batch, ImageDataset, ImageLoader
    from promptot.data.readers import load_task
    from promptot.data.readers.folder import find_images, load_folder
    from promptot.data.task import Example, ImageTask, Skipped
    from promptot.data.unreadable import choose_shots, find_unreadable

__all__ = [
    "Batch",
    "Example",
    "ImageDataset",
    "ImageLoader",
    "ImageTask",
    "Skipped",
    "UnreadableImage",
    "choose_shots",
    "find_images",
    "find_unreadable",
    "list_groups",
    "list_styles",
    "load_bundled",
    "load_bundled_others",
    "load_folder",
    "load_image",
    "load_task",
    "split_examples",
]

_LAZY = {
    "Batch": "loader",
    "Example": "task",
    "ImageDataset": "loader",
    "ImageLoader": "loader",
    "ImageTask": "task",
    "Skipped": "task",
    "UnreadableImage": "images.read_image",
    "choose_shots": "unreadable",
    "find_images": "readers.folder",
    "find_unreadable": "unreadable",
    "list_groups": "catalog.drawings",
    "list_styles": "catalog.drawings",
    "load_bundled": "catalog.drawings",
    "load_bundled_others": "catalog.drawings",
    "load_folder": "readers.folder",
    "load_image": "images.read_image",
    "load_task": "readers",
    "split_examples": "dividing",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: to read an image takes no PyTorch."""
    if name in _LAZY:
        return getattr(import_module(f"promptot.data.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'promptot.data' has no attribute '{name}'")
