"""A run in a small random CLIP, its application, and a real server of it."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")
sys.path.insert(0, str(Path(__file__).parent))

import promptot
from promptot.adaptation import build_prompts
from promptot.backbones import Backbone
from promptot.recipes import load_recipe
from promptot.runs.adapter import save_adapter
from promptot.runs.classifier import Classifier

NAMES = ("cat", "red panda", "bicycle")


@pytest.fixture(scope="session")
def run_folder(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An adapter whose answers are far from the frozen model's."""
    generator = torch.Generator().manual_seed(0)
    prompts = build_prompts(load_recipe("prompt-ot").prompts, backbone, len(NAMES), generator)
    with torch.no_grad():
        for parameter in prompts.parameters():
            parameter.add_(0.5 * torch.randn(parameter.shape, generator=generator))
    folder = tmp_path_factory.mktemp("served") / "run"
    save_adapter(folder, prompts, backbone, NAMES, "a photo of a {}.")
    return folder


@pytest.fixture(scope="session")
def classifier(run_folder: Path, backbone: Backbone) -> Classifier:
    return promptot.load(run_folder, backbone)


@pytest.fixture(scope="session")
def make_image() -> Callable[..., bytes]:
    """`make_image(3)`: the bytes of a noisy PNG, another one for every seed."""

    def make(seed: int = 0, size: tuple[int, int] = (40, 32), kind: str = "PNG") -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
        file = io.BytesIO()
        Image.fromarray(pixels).save(file, kind)
        return file.getvalue()

    return make


@pytest.fixture(scope="session")
def live(run_folder: Path) -> Iterator[str]:
    """The address of a real server."""
    from server_process import serving

    with serving(run_folder) as address:
        yield address
