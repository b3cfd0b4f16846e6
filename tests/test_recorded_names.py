"""Adapters whose card names a file in the OpenAI layout as earlier versions did."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import promptot
from promptot.backbones import load_backbone
from promptot.errors import PromptotError
from promptot.runs.estimator import PromptClassifier


def test_an_old_adapter_loads_in_a_file_that_tells_nothing(
    photos: Path, clip_file: Path, tmp_path: Path
) -> None:
    weights = load_file(clip_file)
    file = tmp_path / "clip.safetensors"
    save_file(weights, file)
    run = promptot.fit(
        photos,
        tmp_path / "run",
        backbone=load_backbone(f"openai:{file}"),
        device="cpu",
        overrides=["optim.epochs=1", "data.views=1"],
        shots=1,
        report=False,
    ).folder
    image = next(photos.rglob("*.png"))
    expected = promptot.load(run).classify([image])

    for key in ("input_resolution", "context_length", "vocab_size"):
        del weights[key]
    save_file(weights, file)  # as it was where the adapter was made
    assert promptot.load(run).classify([image]) == expected
    assert promptot.load(run, f"openai:{file}").classify([image]) == expected  # the card's own name
    other = tmp_path / "other.safetensors"
    save_file(weights, other)
    with pytest.raises(PromptotError, match="Append .*heads=2,1"):
        promptot.load(run, f"openai:{other}")
    said = f"openai:{file}?heads=2,1&activation=quick_gelu&preprocess=openai"
    assert promptot.load(run, said).classify([image]) == expected

    estimator = PromptClassifier.load(run, device="cpu")
    label = estimator.predict([image])
    assert pickle.loads(pickle.dumps(estimator)).predict([image]) == label
    assert torch.equal(
        load_backbone(said).logit_scale, load_backbone(estimator.backbone).logit_scale
    )
