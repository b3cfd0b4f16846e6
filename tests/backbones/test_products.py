"""Products with frozen matrices: the fast kernel and the fallback, forward and backward."""

from __future__ import annotations

import warnings

import pytest
import torch
import torch.nn.functional as F

from promptot.backbones import by_name, load_backbone
from promptot.backbones.towers import products
from promptot.errors import PromptotWarning

SHAPES = [((7, 12), 20), ((2, 3, 12), 5), ((1, 12), 12)]
BOUNDS = {torch.float32: 1e-5, torch.bfloat16: 3e-2}


@pytest.fixture(params=["fast", "fallback"])
def kernel(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param == "fallback":
        monkeypatch.setattr(products, "_ONEDNN", {})
    else:  # also where the CPU would be served better by the fallback
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
        kernels = {dtype: products._find_onednn(dtype) for dtype in BOUNDS}
        monkeypatch.setattr(products, "_ONEDNN", kernels)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", BOUNDS, ids=str)
@pytest.mark.parametrize(("shape", "outputs"), SHAPES)
def test_linear_is_that_of_torch(shape, outputs, dtype, bias):
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape, generator=generator)
    weight = torch.randn(outputs, shape[-1], generator=generator)
    offset = torch.randn(outputs, generator=generator) if bias else None
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    away = torch.randn(*shape[:-1], outputs, generator=generator)

    wanted = F.linear(theirs, weight, offset)
    wanted.backward(away)
    stored = None if offset is None else offset.to(dtype)
    found = products.linear(ours, weight.to(dtype), stored)
    found.backward(away.to(dtype))

    assert found.dtype == dtype
    assert ours.grad.dtype == torch.float32
    scale = wanted.abs().max()
    assert (found - wanted).abs().max() <= BOUNDS[dtype] * scale
    assert (ours.grad - theirs.grad).abs().max() <= BOUNDS[dtype] * theirs.grad.abs().max()


def test_a_matrix_that_learns_gets_its_gradient():
    weight = torch.randn(4, 3, requires_grad=True)
    products.linear(torch.ones(2, 3), weight).sum().backward()
    assert torch.equal(weight.grad, torch.full((4, 3), 2.0))


@pytest.mark.usefixtures("kernel")
def test_rows_that_are_views():
    weight = torch.randn(5, 6)
    table = torch.randn(6, 8, 4)
    for x in (torch.randn(1, 6).expand(3, 6), table.permute(1, 2, 0)):
        torch.testing.assert_close(products.product(x, weight), F.linear(x, weight))
    x = torch.randn(3, 6, requires_grad=True)
    products.linear(x, weight).sum().backward()  # its gradient is one number, expanded
    torch.testing.assert_close(x.grad, weight.sum(dim=0).expand(3, 6))


@pytest.mark.parametrize(("capability", "asked"), [("AVX512", True), ("AVX2", False)])
def test_fp32_goes_to_onednn_only_where_it_is_faster(capability, asked, monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    found = products._find_onednn(torch.float32)
    assert (found is not None) == (asked and torch.backends.mkldnn.is_available())


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("instructions", [True, False])
def test_16_bits_without_instructions_are_warned_of(precision, instructions, monkeypatch):
    monkeypatch.setattr(by_name, "has_instructions", lambda dtype: instructions)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", PromptotWarning)
        load_backbone("bundled:tiny", "cpu", precision)
    said = [str(w.message) for w in caught if issubclass(w.category, PromptotWarning)]
    expected = not instructions and precision != "fp32"
    assert len(said) == expected
    assert not said or f"no instructions for {precision}" in said[0]


def test_other_processors_are_believed_to_have_them(monkeypatch):
    monkeypatch.setattr(products.platform, "machine", lambda: "arm64")
    assert products.has_instructions(torch.bfloat16)
    monkeypatch.setattr(products.platform, "machine", lambda: "x86_64")
    for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"):
        monkeypatch.setattr(torch.cpu, name, lambda: False)
    assert not products.has_instructions(torch.bfloat16)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    assert products.has_instructions(torch.bfloat16)
    assert not products.has_instructions(torch.float16)
