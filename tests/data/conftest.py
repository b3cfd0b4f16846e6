from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

WriteImage = Callable[..., Path]


@pytest.fixture
def write_image(tmp_path: Path) -> WriteImage:
    """Writes a small image below `tmp_path`: `write_image("train/cat/1.png", red=3)`."""

    def write(name: str, red: int = 0, size: tuple[int, int] = (12, 10)) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, (red, 0, 0)).save(path)
        return path

    return write
