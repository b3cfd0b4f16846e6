"""The shared-prefix encoder against the plain full-length one."""

from __future__ import annotations

from contextlib import AbstractContextManager
from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from oracle import full_length_features

from promptot.backbones.architecture import TextShape, TransformerShape
from promptot.backbones.injection import Injection
from promptot.backbones.towers import tiled_blocks
from promptot.backbones.towers.packing import pack
from promptot.backbones.towers.text_tower import TextTower
from promptot.errors import PromptotError

SOS, EOS = 0, 199


def make_tower(seed: int, layers: int, width: int = 32, heads: int = 2) -> TextTower:
    torch.manual_seed(seed)
    tower = TextTower(
        TextShape(TransformerShape(width, layers, heads, 3 * width, "quick_gelu"), 200, 48), 24
    )
    for parameter in tower.parameters():
        parameter.requires_grad_(False)
        if parameter.dim() == 1:
            parameter.add_(0.1 * torch.randn_like(parameter))
    tower.positional_embedding.mul_(30)
    return tower


def make_names(seed: int, classes: int, longest: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (classes,), generator=generator).tolist()
    return [
        [SOS, *torch.randint(1, EOS, (length,), generator=generator).tolist(), EOS]
        for length in lengths
    ]


def make_context(seed: int, depth: int, tokens: int, width: int, classes: int | None) -> list:
    generator = torch.Generator().manual_seed(seed)
    shape = (tokens, width) if classes is None else (classes, tokens, width)
    return [torch.randn(shape, generator=generator).requires_grad_() for _ in range(depth)]


def attention_by(tiled: bool) -> AbstractContextManager[None]:
    """By tiles, as on a GPU, or by lengths, as on a CPU."""
    return patch.object(tiled_blocks, "works_on", lambda *_: tiled)


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    layers=st.integers(1, 5),
    depth=st.integers(0, 5),
    tokens=st.integers(1, 9),
    longest=st.integers(1, 30),
    classes=st.one_of(st.integers(1, 12), st.integers(13, 300)),
    specific=st.booleans(),
    tiled=st.booleans(),
)
def test_features_and_gradients_match_the_plain_encoder(
    seed: int,
    layers: int,
    depth: int,
    tokens: int,
    longest: int,
    classes: int,
    specific: bool,
    tiled: bool,
) -> None:
    tower = make_tower(seed, layers)
    names = make_names(seed, classes, longest)
    context = make_context(
        seed, min(depth, layers), tokens, tower.width, classes if specific else None
    )
    target = torch.randn(classes, 24, generator=torch.Generator().manual_seed(seed + 1))

    with attention_by(tiled):
        ours = tower(pack(names, shared=1), Injection(tuple(context)))
    plain = full_length_features(tower, names, context)
    scale = plain.abs().max()
    assert ((ours - plain).abs().max() / scale) < 1e-5
    if context:
        got = torch.autograd.grad((ours * target).sum() / classes, context)
        expected = torch.autograd.grad((plain * target).sum() / classes, context)
        for a, b in zip(got, expected, strict=True):
            assert torch.linalg.vector_norm(a - b) <= 1e-4 * torch.linalg.vector_norm(b) + 1e-7


def test_a_common_prefix_longer_than_sos_is_shared() -> None:
    tower = make_tower(0, 3)
    sequences = [[SOS, 5, 6, 7, EOS], [SOS, 5, 6, 8, 9, EOS], [SOS, 5, 6, EOS]]
    packed = pack(sequences)
    assert packed.prefix.tolist() == [SOS, 5, 6]
    expected = full_length_features(tower, sequences)
    torch.testing.assert_close(tower(packed), expected, rtol=1e-5, atol=1e-5)


def test_equal_names_and_a_single_class() -> None:
    tower = make_tower(1, 2)
    for sequences in ([[SOS, 4, EOS]], [[SOS, 4, EOS], [SOS, 4, EOS]]):
        expected = full_length_features(tower, sequences)
        torch.testing.assert_close(tower(pack(sequences)), expected, rtol=1e-5, atol=1e-5)


def test_no_gradient_reaches_the_weights() -> None:
    tower = make_tower(2, 2)
    context = make_context(2, 2, 3, tower.width, None)
    tower(pack(make_names(2, 5, 4), shared=1), Injection(tuple(context))).sum().backward()
    assert all(parameter.grad is None for parameter in tower.parameters())
    assert all(tokens.grad is not None and tokens.grad.abs().sum() > 0 for tokens in context)


def test_packing_restores_the_order() -> None:
    sequences = [[0, 1, 2, 3, 9], [0, 1, 9], [0, 4, 5, 9], [0, 6, 9]]
    packed = pack(sequences, shared=1)
    assert packed.classes == 4
    assert packed.longest == 5
    assert packed.suffixes[packed.ends].tolist() == [9] * 4
    assert packed.unsort(packed.order).tolist() == [0, 1, 2, 3]


def test_few_padding_tokens_replace_a_group_and_change_nothing() -> None:
    tower = make_tower(3, 3)
    names = make_names(3, 100, 3) + [[SOS, *range(1, 1 + n), EOS] for n in (9, 10, 12)]
    packed = pack(names, shared=1)
    assert [group.classes for group in packed.groups][-1] == 3
    assert packed.groups[-1].beyond_end is not None
    assert len(packed.suffixes) == sum(len(name) - 1 for name in names) + 3 + 2
    assert packed.suffixes[packed.ends].tolist() == [EOS] * len(names)
    expected = full_length_features(tower, names)
    torch.testing.assert_close(tower(packed), expected, rtol=1e-5, atol=1e-5)


def test_one_padded_group_changes_nothing() -> None:
    """As on a GPU, where groups cost more than tokens."""
    tower = make_tower(3, 3)
    names = make_names(3, 100, 3) + [[SOS, *range(1, 1 + n), EOS] for n in (9, 10, 12)]
    packed = pack(names, shared=1, padding=10_000)
    assert len(packed.groups) == 1
    expected = full_length_features(tower, names)
    torch.testing.assert_close(tower(packed), expected, rtol=1e-5, atol=1e-5)


def test_no_names_is_an_error() -> None:
    with pytest.raises(PromptotError, match="no class names"):
        pack([])


@pytest.mark.parametrize("depth", [1, 3])
def test_tiles_of_several_images(depth: int) -> None:
    """A context an image, in the first block; the others' are shared."""
    tower = make_tower(5, 3)
    names = make_names(5, 40, 6)
    context = make_context(5, depth, 4, tower.width, None)
    context[0] = make_context(6, 1, 4, tower.width, 3)[0]
    target = torch.randn(3, 40, 24, generator=torch.Generator().manual_seed(1))
    found = []
    for tiled in (False, True):
        with attention_by(tiled):
            out = tower(pack(names, shared=1), Injection(tuple(context), images=3))
            found.append((out, *torch.autograd.grad((out * target).sum(), context)))
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4 * float(b.detach().abs().max()))


def test_what_nobody_reads_is_finite() -> None:
    """Names of 60 tokens leave most of a tile of 61 places empty behind them."""
    tower = make_tower(2, 2)
    names = [[SOS, *range(1, n), EOS] for n in (30, 38, 39)]
    with attention_by(True):
        context = make_context(2, 2, 3, tower.width, None)
        out = tower(pack(names, shared=1), Injection(tuple(context)))
        gradients = torch.autograd.grad(out.sum(), context)
    torch.testing.assert_close(out, full_length_features(tower, names, context))
    assert all(gradient.isfinite().all() for gradient in gradients)
