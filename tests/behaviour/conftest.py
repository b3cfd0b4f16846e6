"""A very small random CLIP, and small ones of every family, shared by the tests of behaviour."""

from __future__ import annotations

from pathlib import Path

import pytest
from families import Families
from matrix import write_small_clip, write_words

from promptot.backbones import Backbone, load_backbone


@pytest.fixture(scope="session")
def small_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_small_clip(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture(scope="session")
def words(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_words(tmp_path_factory.mktemp("words"))


@pytest.fixture(scope="module")
def families(tmp_path_factory: pytest.TempPathFactory) -> Families:
    return Families(tmp_path_factory.mktemp("families"))
