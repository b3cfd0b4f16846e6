"""Every design's features against a plain computation: full sequences, one image at a time."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
import torch.nn.functional as F
from oracle import full_length_features
from torch import Tensor

from promptot.adaptation import Adaptation, CoCoOpPrompts, IVLPPrompts, MaPLePrompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.backbones.towers.image_tower import ImageTower

NAMES = ["cat", "hot dog", "great white shark", "bee"]


def plain_text(
    backbone: Backbone, context: Sequence[Tensor], names: Sequence[str], fixed_words: str = ""
) -> Tensor:
    sentences = [f"{fixed_words} {name}.".strip() for name in names]
    sequences = [backbone.tokenizer.encode(sentence) for sentence in sentences]
    return F.normalize(full_length_features(backbone.text_tower, sequences, context), dim=-1)


def plain_image(tower: ImageTower, images: Tensor, prompts: Sequence[Tensor]) -> Tensor:
    """Features [B, D], one image after the other, the attention written out."""
    features = []
    for patches in tower.stem(images):
        x = torch.cat([tower.class_embedding[None], patches]) + tower.positional_embedding
        kept = len(x)
        for depth, block in enumerate(tower.transformer.resblocks):
            if depth < len(prompts):
                x = torch.cat([x[:kept], prompts[depth]])
            if depth == 0:
                x = tower.ln_pre(x)
            attn, normed = block.attn, block.ln_1(x)
            qkv = normed @ attn.in_proj_weight.T + attn.in_proj_bias
            heads = []
            for q, k, v in zip(
                *(part.chunk(attn.heads, dim=1) for part in qkv.chunk(3, dim=1)), strict=True
            ):
                heads.append((q @ k.T / q.shape[1] ** 0.5).softmax(dim=1) @ v)
            x = x + attn.out_proj(torch.cat(heads, dim=1))
            hidden = block.mlp.c_fc(block.ln_2(x))
            x = x + block.mlp.c_proj(hidden * torch.sigmoid(1.702 * hidden))
        features.append(tower.ln_post(x[0]) @ tower.proj)
    return F.normalize(torch.stack(features), dim=-1)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def images(count: int = 3) -> Tensor:
    return torch.randn(count, 3, 32, 32, generator=generator(5))


def enlarge(prompts: Adaptation) -> Adaptation:
    """Prompts far from where they start, so that no term is too small to be seen."""
    noise = generator(6)
    with torch.no_grad():
        for parameter in prompts.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=noise))
    return prompts


def check(model: Student, text: Tensor, image: Tensor) -> None:
    """Features and the gradients of a fixed function of them, against the plain ones."""
    student, _ = model(images())
    torch.testing.assert_close(student.text, text, rtol=0, atol=2e-6)
    torch.testing.assert_close(student.image, image, rtol=0, atol=2e-6)
    assert model.prompts is not None
    parameters = list(model.prompts.parameters())
    source = generator(1)
    to_text, to_image = (torch.randn(x.shape, generator=source) for x in (text, image))
    losses = [
        (t * to_text).sum() + (i * to_image).sum()
        for t, i in ((student.text, student.image), (text, image))
    ]
    ours, plain = (torch.autograd.grad(loss, parameters) for loss in losses)
    for a, b in zip(ours, plain, strict=True):
        assert b.abs().sum() > 0
        assert torch.linalg.vector_norm(a - b) <= 1e-4 * torch.linalg.vector_norm(b)


@pytest.mark.parametrize("fixed_words", ["", "of a"])
@pytest.mark.parametrize("classes", [None, 4])
def test_ivlp(backbone: Backbone, classes: int | None, fixed_words: str) -> None:
    prompts = enlarge(IVLPPrompts(64, 128, 2, 3, 3, 2, None, classes, fixed_words, generator()))
    text = plain_text(backbone, list(prompts.text), NAMES, fixed_words)
    image = plain_image(backbone.image_tower, images(), list(prompts.vision))
    check(Student(backbone, prompts, NAMES), text, image)


@pytest.mark.parametrize(("depth", "cloned"), [(1, False), (3, False), (1, True), (3, True)])
def test_maple(backbone: Backbone, depth: int, cloned: bool) -> None:
    prompts = MaPLePrompts(
        64, 128, 2, depth, fixed_words="of a", generator=generator(), cloned_projections=cloned
    )
    enlarge(prompts)
    text = plain_text(backbone, list(prompts.text), NAMES, "of a")
    state = dict(prompts.named_parameters())
    vision = [
        state[f"text.{i}"] @ state[f"projections.{i}.weight"].T + state[f"projections.{i}.bias"]
        for i in range(depth)
    ]
    image = plain_image(backbone.image_tower, images(), vision)
    check(Student(backbone, prompts, NAMES), text, image)


def test_cloned_projections_start_as_one(backbone: Backbone) -> None:
    """One matrix for all later blocks at the start, which each of them then moves for itself."""
    prompts = MaPLePrompts(64, 128, 2, 3, None, "of a", generator(), cloned_projections=True)
    state = dict(prompts.named_parameters())
    weight, bias = state["projections.1.weight"], state["projections.1.bias"]
    first = state["text.0"] @ state["projections.0.weight"].T + state["projections.0.bias"]
    vision = [first, *(state[f"text.{i}"] @ weight.T + bias for i in (1, 2))]
    model = Student(backbone, prompts, NAMES)
    with torch.no_grad():
        plain = plain_image(backbone.image_tower, images(), vision)
        torch.testing.assert_close(model(images())[0].image, plain, rtol=0, atol=2e-6)
    enlarge(prompts)
    assert not torch.equal(weight, state["projections.2.weight"])


@pytest.mark.parametrize("fixed_words", ["", "of a"])
def test_cocoop(backbone: Backbone, fixed_words: str) -> None:
    prompts = enlarge(CoCoOpPrompts(64, backbone.embed_dim, 3, None, fixed_words, generator()))
    assert isinstance(prompts, CoCoOpPrompts)
    image = plain_image(backbone.image_tower, images(), [])
    first, _, second = prompts.meta_net
    with torch.no_grad():
        first.bias.fill_(0.5)  # no unit is off for all images
        second.weight.mul_(5)
    text = []
    for feature in image:
        hidden = (first.weight @ feature + first.bias).clamp(min=0)
        context = prompts.text[0] + (second.weight @ hidden + second.bias)
        text.append(plain_text(backbone, [context], NAMES, fixed_words))
    assert (text[0] - text[1]).abs().max() > 0.01
    check(Student(backbone, prompts, NAMES), torch.stack(text), image)


def test_the_meta_net_has_a_sixteenth_of_the_features() -> None:
    prompts = CoCoOpPrompts(text_width=10, embed_dim=64, generator=generator())
    shapes = [tuple(parameter.shape) for parameter in prompts.meta_net.parameters()]
    assert shapes == [(4, 64), (4,), (10, 4), (10,)]
    bounds = [parameter.abs().max().item() for parameter in prompts.meta_net.parameters()]
    assert 0.5 / 8 < max(bounds[:2]) <= 1 / 8
    assert 0.5 / 2 < max(bounds[2:]) <= 1 / 2
