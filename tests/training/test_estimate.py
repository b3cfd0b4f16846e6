"""The estimate of memory against what autograd really keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from promptot.backbones import load_backbone
from promptot.errors import PromptotError
from promptot.model import PromptedModel
from promptot.prompts import IVLPPrompts
from promptot.training.estimate import activation_bytes, check_memory, memory_estimate


def kept_bytes(model: PromptedModel, images: Tensor) -> int:
    """Bytes of the distinct storages that autograd keeps for backward, weights left out."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        student, _ = model(images)
        (student.image.sum() + student.text.sum()).backward()
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    ("classes", "batch", "text_tokens", "vision_tokens", "specific"),
    [(200, 2, 4, 4, False), (3, 32, 4, 4, False), (50, 4, 0, 4, False), (80, 4, 4, 0, True)],
)
def test_activations_are_estimated_within_30_percent(
    clip_file: Path,
    precision: str,
    classes: int,
    batch: int,
    text_tokens: int,
    vision_tokens: int,
    specific: bool,
) -> None:
    backbone = load_backbone(f"openai:{clip_file}", precision=precision)
    names = [f"thing number {index}" for index in range(classes)]
    generator = torch.Generator().manual_seed(0)
    prompts = IVLPPrompts(
        64,
        128,
        text_tokens,
        3,
        vision_tokens,
        3,
        classes=classes if specific else None,
        generator=generator,
    )
    model = PromptedModel(backbone, prompts, names)
    kept = kept_bytes(model, torch.randn(batch, 3, 32, 32))
    assert activation_bytes(model, batch) == pytest.approx(kept, rel=0.3)


def test_a_run_that_does_not_fit_is_refused(
    clip_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = load_backbone(f"openai:{clip_file}")
    model = PromptedModel(backbone, IVLPPrompts(64, 128, 4, 3, 4, 3), ["cat", "dog"])
    needed, available = check_memory(model, 4)
    assert 0 < needed < available
    monkeypatch.setattr("promptot.training.estimate.available_bytes", lambda device: needed // 2)
    with pytest.raises(PromptotError, match="needs about .* GiB .*Lower optim.batch_size"):
        check_memory(model, 4)
    assert memory_estimate(model, 64) > memory_estimate(model, 4)
