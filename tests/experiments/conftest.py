"""Small benchmarks on folders of one-colour images, with the small random CLIP."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from promptot.backbones import Backbone
from promptot.experiments import Benchmark, run_benchmark

QUICK = ("optim.epochs=1", "data.views=1")


@pytest.fixture
def bench(
    backbone: Backbone, make_photos: Callable[..., Path], tmp_path: Path
) -> Callable[..., Benchmark]:
    """Run base-to-novel on two folders into `tmp_path / out`, unless told otherwise."""
    folders = [str(make_photos(name)) for name in ("photos", "other")]

    def call(protocol: str = "base-to-novel", out: str = "out", **more: Any) -> Benchmark:
        arguments = {
            "methods": "zero-shot,ivlp",
            "tasks": folders,
            "seeds": (1, 2),
            "shots": (2,),
            "overrides": QUICK,
            "backbone": backbone,
        }
        return run_benchmark(protocol, tmp_path / out, **(arguments | more))

    return call
