from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parent))

COLOURS = {"red": (200, 30, 30), "green_apple": (40, 180, 60), "blue": (30, 60, 210)}


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of two blocks of width 64 a tower, 16 px."""
    from weights import openai_state_dict

    sizes = {"vision_width": 64, "vision_layers": 2, "text_layers": 2, "resolution": 16}
    state = openai_state_dict(3, **sizes, embed=64)
    path = tmp_path_factory.mktemp("small") / "clip.safetensors"
    save_file({key: torch.tensor(value) for key, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three classes of five small images."""
    root = tmp_path_factory.mktemp("data") / "photos"
    generator = np.random.default_rng(0)
    for label, colour in COLOURS.items():
        (root / label).mkdir(parents=True)
        for index in range(5):
            pixels = np.array(colour) + generator.normal(0, 25, (20, 20, 3))
            Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(
                root / label / f"{index}.png"
            )
    return root


@pytest.fixture
def fast_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """A hundred seconds of waiting for another process take one."""
    real, start = time.monotonic, time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: start + 100 * (real() - start))


@pytest.fixture(scope="session")
def launcher(
    small_file: Path, few_photos: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[object]:
    from killing import Launcher

    found = Launcher(small_file, few_photos, tmp_path_factory.mktemp("note") / "note.txt")
    yield found
    found.close()
