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
    from promptot.data.shots import choose_shots, find_unreadable
    from promptot.data.task import Example, ImageTask, Skipped

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

_MODULES = {
    "catalog.drawings": ("list_groups", "list_styles", "load_bundled", "load_bundled_others"),
    "dividing": ("split_examples",),
    "images.read_image": ("UnreadableImage", "load_image"),
    "loader": ("Batch", "ImageDataset", "ImageLoader"),
    "readers": ("load_task",),
    "readers.folder": ("find_images", "load_folder"),
    "task": ("Example", "ImageTask", "Skipped"),
    "shots": ("choose_shots", "find_unreadable"),
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: to read an image takes no PyTorch."""
    for module, names in _MODULES.items():
        if name in names:
            return getattr(import_module(f"promptot.data.{module}"), name)
    raise AttributeError(f"module 'promptot.data' has no attribute '{name}'")
