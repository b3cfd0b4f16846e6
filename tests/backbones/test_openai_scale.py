"""A file in the OpenAI layout whose scale is saved as one number in a list, as open_clip may."""

from __future__ import annotations

from pathlib import Path

from safetensors.torch import load_file, save_file
from saved_clips import save_open_clip

from promptot.backbones import load_backbone


def test_the_scale_s_shape_changes_nothing(tmp_path: Path) -> None:
    folder = save_open_clip(tmp_path)
    weights = load_file(folder / "open_clip_model.safetensors")
    save_file(weights, tmp_path / "plain.safetensors")
    listed = weights | {"logit_scale": weights["logit_scale"].reshape(1)}
    save_file(listed, tmp_path / "listed.safetensors")
    said = "?activation=gelu&heads=3,5&preprocess=openai"
    plain = load_backbone(f"openai:{tmp_path / 'plain.safetensors'}{said}")
    listed = load_backbone(f"openai:{tmp_path / 'listed.safetensors'}{said}")
    assert listed.logit_scale.shape == plain.logit_scale.shape == ()
    assert listed.identity() == plain.identity()
