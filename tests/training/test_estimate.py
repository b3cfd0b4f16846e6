"""The estimate of memory against what autograd really keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from promptot.adaptation import Adaptation, CoCoOpPrompts, IVLPPrompts, MaPLePrompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.backbones.towers import tiled_attention, tiled_blocks
from promptot.errors import PromptotError
from promptot.training.estimate import (
    activation_bytes,
    check_memory,
    lack_explained,
    memory_estimate,
)


def cached_bytes(model: Student, images: Tensor, words: Tensor | None = None) -> int:
    """Bytes of the distinct storages that autograd keeps for backward, weights left out."""
    weights = {tensor.untyped_storage().data_ptr() for tensor in model.state_dict().values()}
    seen: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in weights:
            seen[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        student, _ = model(images, words=words)
        parts = (student.image, student.text, student.vocabulary)
        sum(part.sum() for part in parts if part is not None and part.requires_grad).backward()
    return sum(tensor.untyped_storage().nbytes() for tensor in seen.values())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(
    "sizes",
    [(200, 2, 4, 4, False), (3, 32, 4, 4, False), (50, 4, 0, 4, False), (80, 4, 4, 0, True)],
)
def test_activations_are_estimated_within_30_percent(
    clip_file: Path, precision: str, sizes: tuple[int, int, int, int, bool]
) -> None:
    kept, estimate = kept_and_estimated(clip_file, precision, *sizes)
    assert estimate == pytest.approx(kept, rel=0.3)


def kept_and_estimated(
    clip_file: Path,
    precision: str,
    classes: int,
    batch: int,
    text_tokens: int,
    vision_tokens: int,
    specific: bool,
) -> tuple[int, int]:
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
    model = Student(backbone, prompts, names)
    kept = cached_bytes(model, torch.randn(batch, 3, 32, 32))
    return kept, activation_bytes(model, batch)


@pytest.mark.parametrize("specific", [False, True])
def test_so_are_those_of_tiles(
    clip_file: Path, monkeypatch: pytest.MonkeyPatch, specific: bool
) -> None:
    """Without the weights, which the kernel of a GPU does not keep."""
    weights: list[Tensor] = []

    class Products(tiled_attention._Products):
        @staticmethod
        def forward(*given: Tensor) -> tuple[Tensor, ...]:
            found = tiled_attention._Products.forward(*given)
            weights.append(found[1])
            return found

    monkeypatch.setattr(tiled_blocks, "works_on", lambda *_: True)
    monkeypatch.setattr(tiled_attention, "_kernel", lambda _: Products)
    kept, estimate = kept_and_estimated(clip_file, "fp32", 80, 4, 4, 0, specific)
    kept -= sum(tensor.untyped_storage().nbytes() for tensor in weights)
    assert estimate == pytest.approx(kept, rel=0.1)


@pytest.mark.parametrize(
    ("prompts", "batch", "words"),
    [
        (IVLPPrompts(64, 128, 4, 3, 4, 3), 4, 60),
        (MaPLePrompts(64, 128, 2, 3), 8, 0),
        (CoCoOpPrompts(64, 32, 4), 3, 0),
        (CoCoOpPrompts(64, 32, 4), 5, 20),
    ],
)
def test_anchor_words_and_text_that_depends_on_the_image_are_estimated(
    backbone: Backbone, prompts: Adaptation, batch: int, words: int
) -> None:
    names = [f"thing number {index}" for index in range(30)]
    vocabulary = [f"anchor {index}" for index in range(100)]
    model = Student(backbone, prompts, names, vocabulary=vocabulary)
    positions = torch.arange(words) if words else None
    model(torch.zeros(1, 3, 32, 32), words=positions)  # the teacher's words are computed but once
    kept = cached_bytes(model, torch.randn(batch, 3, 32, 32), positions)
    assert activation_bytes(model, batch, words) == pytest.approx(kept, rel=0.3)


def test_what_to_lower_is_said_where_a_gpu_runs_out_of_memory() -> None:
    """Also from within a step: the estimate can't know what other processes take."""
    said = pytest.raises(PromptotError, match=r"GPU was not enough.*Tried to allocate 2.00 GiB")
    with said as e, lack_explained():
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 …")
    assert "optim.batch_size" in e.value.fix
    assert "checkpoint" in e.value.fix


def test_a_run_that_does_not_fit_is_refused(clip_file: Path) -> None:
    backbone = load_backbone(f"openai:{clip_file}")
    model = Student(backbone, IVLPPrompts(64, 128, 4, 3, 4, 3), ["cat", "dog"])
    needed, available = check_memory(model, 4)
    assert 0 < needed < available
    with pytest.raises(PromptotError, match="needs about .* GiB .*Lower optim.batch_size"):
        check_memory(model, 4, available=needed // 2)
    with pytest.raises(PromptotError, match="2 classes and 7 anchor words"):
        check_memory(model, 4, words=7, available=needed // 2)
    assert memory_estimate(model, 64) > memory_estimate(model, 4)
