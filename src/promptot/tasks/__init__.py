"""Where images and class names come from: every kind of source, shots and splits."""

from __future__ import annotations

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
