"""A frozen block's attention in one function gives what its single steps give."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from promptot.backbones.architecture import TransformerShape
from promptot.backbones.towers import transformer
from promptot.backbones.towers.frozen_attention import ON_CPU
from promptot.backbones.towers.transformer import Block

PLAIN = TransformerShape(64, 1, 4, 96, "gelu")
KINDS = {
    "plain": PLAIN,
    "eva02": replace(PLAIN, activation="silu", gated=True, attention_norm=True, mlp_norm="hidden"),
    "vitamin": replace(PLAIN, gated=True, mlp_norm="input"),
}


def drawn(shape: TransformerShape) -> Block:
    generator = torch.Generator().manual_seed(0)
    block = Block(shape).requires_grad_(False)
    for parameter in block.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.copy_(noise * 0.1 + (parameter.dim() == 1))
    return block


def compute(
    block: Block, x: Tensor, kept: int | None, rotation: Tensor | None, visible: Tensor | None
) -> tuple[Tensor, Tensor]:
    x = x.clone().requires_grad_()
    out = block(x, kept, rotation=rotation, visible=visible)
    weights = torch.randn(out.shape, generator=torch.Generator().manual_seed(5))
    (gradient,) = torch.autograd.grad((out * weights).sum(), x)
    return out.detach(), gradient


@pytest.mark.skipif(not ON_CPU, reason="PyTorch has no such kernel here")
@pytest.mark.parametrize("masked", [None, "keys", "pairs"])
@pytest.mark.parametrize("rotated", [False, True])
@pytest.mark.parametrize("kept", [None, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_it_is_the_single_steps(
    monkeypatch: pytest.MonkeyPatch, kind: str, kept: int | None, rotated: bool, masked: str | None
) -> None:
    block = drawn(KINDS[kind])
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(3, 10, 64, generator=generator)
    angles = torch.randn(8, 16, generator=generator)
    rotation = torch.stack([angles.cos(), angles.sin()]) if rotated else None
    visible = None
    if masked is not None:
        rows = 1 if masked == "keys" else 10
        visible = torch.rand(3, 1, rows, 10, generator=generator) > 0.3
        visible[..., 0] = True
    at_once = compute(block, x, kept, rotation, visible)
    with torch.no_grad():
        assert torch.equal(block(x, kept, rotation=rotation, visible=visible), at_once[0])
    monkeypatch.setattr(transformer, "works_on", lambda *_: False)
    steps = compute(block, x, kept, rotation, visible)
    for one, other in zip(at_once, steps, strict=True):
        torch.testing.assert_close(one, other, atol=1e-6, rtol=1e-5)
        if masked is None:
            assert torch.equal(one, other)
