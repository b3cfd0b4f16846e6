"""A run in a small random CLIP, its application, and a real server of it."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("python_multipart")
sys.path.insert(0, str(Path(__file__).parent))

from starlette.applications import Starlette

import promptot
from promptot.adaptation import build_prompts
from promptot.backbones import Backbone
from promptot.recipes import load_recipe
from promptot.runs.adapter import save_adapter
from promptot.runs.classifier import Classifier
from promptot.serving.comparing import Comparer
from promptot.serving.flags import FlagFile
from promptot.serving.server import address_of, listen, page_server
from promptot.serving.web_app import create_app

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


@contextmanager
def _in_thread(app: Starlette) -> Iterator[str]:
    """Serve an application in a thread of this process; gives its address."""
    server = page_server(app)
    with listen("127.0.0.1", 0) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        yield address_of(listener)
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()


@pytest.fixture(scope="session")
def in_thread() -> Callable[[Starlette], AbstractContextManager[str]]:
    return _in_thread


@pytest.fixture(scope="session")
def live(classifier: Classifier, run_folder: Path) -> Iterator[str]:
    """The address of a real server."""
    flags = FlagFile(run_folder / "flags.csv")
    with _in_thread(create_app(Comparer(classifier), flags, title="run")) as address:
        yield address
