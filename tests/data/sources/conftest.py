from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptot.data import Example, ImageTask


@pytest.fixture
def pets(tmp_path: Path) -> Path:
    """`pets/train/cat/0.png` and so on: two classes, three images to train on, two to test."""
    generator = np.random.default_rng(0)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "red_fox"):
            folder = tmp_path / "pets" / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = generator.integers(0, 256, (9, 12, 3), np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "pets"


Content = dict[str, list[tuple[str, str]]]


@pytest.fixture
def content() -> Callable[[ImageTask], Content]:
    """What is in a task, whatever it is called: by split the hash and the class of each image."""

    def describe(task: ImageTask) -> Content:
        def known(examples: tuple[Example, ...]) -> list[tuple[str, str]]:
            return sorted((e.hash(), task.class_names[e.label]) for e in examples)

        return {"train": known(task.train), "test": known(task.test)}

    return describe
