"""Random features of a teacher, and of a student that drifted away from it."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from promptot.objectives import Features


def _random(batch, classes, seed, *, width=16, words=None, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    image, text, vocabulary = (
        None if size is None else F.normalize(torch.randn(size, width, generator=generator), dim=1)
        for size in (batch, classes, words)
    )
    vocabulary = None if vocabulary is None else vocabulary.to(dtype)
    return Features(image.to(dtype), text.to(dtype), vocabulary)


def _drifted(features, drift, seed=99):
    generator = torch.Generator().manual_seed(seed)

    def moved(points):
        step = torch.randn(points.shape, generator=generator, dtype=points.dtype)
        return F.normalize(points + drift * step, dim=-1)

    vocabulary = None if features.vocabulary is None else moved(features.vocabulary)
    return Features(moved(features.image), moved(features.text), vocabulary)


def _per_image(features, drift=0.0, seed=77):
    """The same features with a text matrix for each image, as CoCoOp has it."""
    text = features.text.expand(len(features.image), -1, -1)
    generator = torch.Generator().manual_seed(seed)
    step = torch.randn(text.shape, generator=generator, dtype=text.dtype)
    return Features(features.image, F.normalize(text + drift * step, dim=-1), features.vocabulary)


@pytest.fixture(scope="session")
def random_features():
    return _random


@pytest.fixture(scope="session")
def drifted():
    return _drifted


@pytest.fixture(scope="session")
def per_image():
    return _per_image
