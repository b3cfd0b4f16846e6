"""What the commands say of results and adapters of before."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from weights import openai_state_dict

FIXTURES = Path(__file__).parents[1] / "fixtures"


@pytest.fixture
def clip(tmp_path: Path) -> str:
    """The CLIP that the adapters in the fixtures belong to."""
    state = {key: torch.tensor(value) for key, value in openai_state_dict(7).items()}
    save_file(state, tmp_path / "clip.safetensors")
    return f"openai:{tmp_path / 'clip.safetensors'}"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """An adapter of 0.1.0, of an open_clip model that had the wrong activation."""
    shutil.copytree(FIXTURES / "format-2" / "ivlp", tmp_path / "old")
    card = json.loads((tmp_path / "old" / "card.json").read_text())
    card["backbone"]["name"] = "open_clip:ViT-B-16/openai"
    (tmp_path / "old" / "card.json").write_text(json.dumps(card))
    return tmp_path / "old"


def test_an_adapter_of_a_wrong_activation_is_told_of_in_a_sentence(
    run: Any, old: Path, clip: str, photos: Path
) -> None:
    image = next(photos.rglob("*.png"))
    before = warnings.showwarning
    result = run("predict", old, image, "--backbone", clip, "--device", "cpu")
    assert result.code == 0
    text = " ".join(result.err.split())
    assert text.startswith("Warning: This adapter was trained in 'open_clip:ViT-B-16/openai' when")
    assert "Train it again." in text
    assert "PromptotWarning" not in result.err
    assert ".py" not in result.err
    assert "Warning" not in result.out
    assert warnings.showwarning is before


def test_info_says_what_the_backbone_does(run: Any, old: Path) -> None:
    result = run("info", FIXTURES / "format-4" / "function")
    assert result.code == 0
    lines = {" ".join(line.split()) for line in result.out.splitlines()}
    assert "image activation quick_gelu" in lines
    assert "text context length 77" in lines
    assert "preprocess resolution 32" in lines
    result = run("info", old)
    assert result.code == 0
    assert "not noted" in result.out
    assert "wrong activation" in " ".join(result.err.split())


def test_other_warnings_stay_what_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from promptot.cli.console import warnings_shown

    shown: list[str] = []

    def show(message: Warning, *rest: Any, **more: Any) -> None:
        shown.append(str(message))

    monkeypatch.setattr(warnings, "showwarning", show)
    with warnings_shown():
        warnings.warn("something else", UserWarning, stacklevel=1)
    assert shown == ["something else"]
