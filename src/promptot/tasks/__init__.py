"""Where images and class names come from: every kind of source, shots and splits."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from promptot.tasks.bundled import list_groups, list_styles, load_bundled, load_bundled_others
    from promptot.tasks.dataset import Example, ImageTask, Skipped
    from promptot.tasks.folder import find_images, load_folder
    from promptot.tasks.images import UnreadableImage, load_image
    from promptot.tasks.loader import Batch, ImageDataset, ImageLoader
    from promptot.tasks.readable import choose_shots, find_unreadable
    from promptot.tasks.sources import load_task
    from promptot.tasks.splits import split_examples

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
    "Example": "dataset",
    "ImageDataset": "loader",
    "ImageLoader": "loader",
    "ImageTask": "dataset",
    "Skipped": "dataset",
    "UnreadableImage": "images",
    "choose_shots": "readable",
    "find_images": "folder",
    "find_unreadable": "readable",
    "list_groups": "bundled",
    "list_styles": "bundled",
    "load_bundled": "bundled",
    "load_bundled_others": "bundled",
    "load_folder": "folder",
    "load_image": "images",
    "load_task": "sources",
    "split_examples": "splits",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: to read an image takes no PyTorch."""
    if name in _LAZY:
        return getattr(import_module(f"promptot.tasks.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'promptot.tasks' has no attribute '{name}'")
