"""Small benchmarks on folders of one-colour images, with the small random CLIP."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from promptot.backbones import Backbone
from promptot.experiments import Benchmark, benchmark
from promptot.experiments.executor import SerialExecutor
from promptot.experiments.image_features import ImageFeatures
from promptot.experiments.run_cells import CellWork
from promptot.runs.learning import adapt

QUICK = ("optim.epochs=1", "data.views=1")


class Watched:
    """Runs cells in this process with another way to learn, or to keep features, in their context.

    Args:
        learn: instead of `adapt`.
        tokens: whether patch tokens are kept; None leaves that to the backbone.
    """

    jobs = 1

    def __init__(self, learn: Callable[..., Any] = adapt, tokens: bool | None = None) -> None:
        self.learn, self.tokens = learn, tokens

    def map(self, work: CellWork, tasks: Sequence[Any]) -> Iterator[Any]:
        context = work.context
        assert context is not None
        context.adapt = self.learn
        if self.tokens is not None:
            context.images = ImageFeatures(context.cache, context.backbone, tokens=self.tokens)
        yield from SerialExecutor().map(work, tasks)


@pytest.fixture(scope="session")
def watched() -> type[Watched]:
    return Watched


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
        return benchmark(protocol, tmp_path / out, **(arguments | more))

    return call
