"""A small random CLIP and small folders of images, shared by the tests."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

HERE = Path(__file__).parent
# What is loaded here is noted for these tests alone, and not for whoever runs them.
os.environ["PROMPTOT_STATE"] = tempfile.mkdtemp(prefix="promptot-state-")
for helpers in (
    "backbones",
    "behaviour",
    "golden",
    "public",
    "training",
):  # helper modules stand beside the tests that use them
    sys.path.insert(0, str(HERE / helpers))
sys.path.insert(0, str(HERE.parent / "benchmarks"))

from promptot.backbones import Backbone, load_backbone  # noqa: E402

COLOURS = {"red": (200, 30, 30), "green_apple": (40, 180, 60), "blue": (30, 60, 210)}
COLOURS |= {"yellow": (220, 210, 40)}


@pytest.fixture(scope="session")
def clip_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small random CLIP (3 blocks a tower, 32 px) in the OpenAI layout."""
    from weights import openai_state_dict

    path = tmp_path_factory.mktemp("clip") / "clip.safetensors"
    save_file({key: torch.tensor(value) for key, value in openai_state_dict(7).items()}, path)
    return path


@pytest.fixture(scope="session")
def backbone(clip_file: Path) -> Backbone:
    return load_backbone(f"openai:{clip_file}", "cpu")


@pytest.fixture(scope="session")
def biased() -> Backbone:
    """The bundled model with a logit bias, as models have one that a sigmoid loss has trained."""
    tiny = load_backbone("bundled:tiny", "cpu")
    towers = tiny.image_tower, tiny.text_tower
    bias = torch.tensor(-8.0)
    return Backbone("biased", *towers, tiny.logit_scale, tiny.tokenizer, tiny.preprocess, bias)


@pytest.fixture(scope="session")
def smallest_clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random CLIP of one block a tower and 16 px, for benchmarks of many cells."""
    from weights import openai_state_dict

    state = openai_state_dict(7, vision_layers=1, resolution=16, text_layers=1, embed=16)
    path = tmp_path_factory.mktemp("clip") / "smallest.safetensors"
    save_file({key: torch.tensor(value) for key, value in state.items()}, path)
    return path


@pytest.fixture(scope="session")
def public_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The fifteen public data sets, made small, with split files; not to be changed."""
    from made_data import make_public_data

    return make_public_data(tmp_path_factory.mktemp("public"))


@pytest.fixture
def make_photos(tmp_path: Path) -> Callable[..., Path]:
    """Write class folders of noisy one-colour images; gives their folder."""

    def make(
        name: str = "photos", images: int = 6, splits: tuple[str, ...] = (), size: int = 40
    ) -> Path:
        generator = np.random.default_rng(0)
        for split in splits or ("",):
            for label, colour in COLOURS.items():
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True, exist_ok=True)
                for index in range(images):
                    noise = generator.normal(0, 25, (size, size, 3))
                    pixels = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
                    Image.fromarray(pixels).save(folder / f"{index}.png")
        return tmp_path / name

    return make


@pytest.fixture
def photos(make_photos: Callable[..., Path]) -> Path:
    """Four classes of six images, without split folders."""
    return make_photos()
