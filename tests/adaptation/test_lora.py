"""LoRA against a plain computation with changed weights, and against its publication's settings."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.adaptation.lora import LoRA, mean
from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone
from promptot.backbones.low_rank import MATRICES, LowRank
from promptot.backbones.towers.adapted_block import AdaptedBlock
from promptot.backbones.towers.transformer import Block
from promptot.errors import PromptotError
from promptot.recipes import load_recipe
from promptot.training.loss import BatchLoss
from promptot.training.train_student import StudentLoss

NAMES = ("cat", "hot dog", "bee")


@pytest.fixture(scope="module")
def own(clip_file: Path) -> Backbone:
    return load_backbone(f"openai:{clip_file}")


def build(backbone: Backbone, seed: int = 0, **options: object) -> LoRA:
    """Of all matrices, with changes that are far from 0."""
    image, text = backbone.image_tower, backbone.text_tower
    sizes = (text.width, image.width, text.mlp_width, image.mlp_width, text.layers, image.layers)
    generator = torch.Generator().manual_seed(seed)
    lora = LoRA(*sizes, **{"targets": ",".join(MATRICES), "generator": generator} | options)
    with torch.no_grad():
        for name, parameter in lora.named_parameters():
            if name.endswith("up"):
                parameter.normal_(std=0.2, generator=generator)
    return lora


def with_changes(block: Block, deltas: dict[str, LowRank]) -> dict[str, Tensor]:
    """The parameters of a block, the changes added, as a function of the thin matrices."""
    own = dict(block.named_parameters())
    q, k, v = own["attn.in_proj_weight"].chunk(3)
    parts = {"q": q, "k": k, "v": v, "o": own["attn.out_proj.weight"]}
    parts |= {"fc": own["mlp.c_fc.weight"], "proj": own["mlp.c_proj.weight"]}
    for name, delta in deltas.items():
        parts[name] = parts[name] + delta.scale * torch.einsum("nr,rk->nk", delta.up, delta.down)
    own["attn.in_proj_weight"] = torch.cat([parts["q"], parts["k"], parts["v"]])
    own["attn.out_proj.weight"] = parts["o"]
    own["mlp.c_fc.weight"], own["mlp.c_proj.weight"] = parts["fc"], parts["proj"]
    return own


@pytest.mark.parametrize("targets", ["q,k,v", "v", "o,fc", ",".join(MATRICES)])
def test_a_block_is_one_with_changed_weights(own: Backbone, targets: str) -> None:
    """Values and gradients, by matrices that are formed, and PyTorch's own layers."""
    block = own.image_tower.transformer.blocks[0]
    lora = build(own, targets=targets)
    x = torch.randn(2, 7, own.image_tower.width, generator=torch.Generator().manual_seed(1))
    target = torch.randn(x.shape, generator=torch.Generator().manual_seed(2))
    deltas = lora().image_deltas[0]
    learned = list(lora.vision[0].parameters())
    found = AdaptedBlock(block, deltas)(x)
    found_gradients = torch.autograd.grad((found * target).sum(), learned)

    weights = with_changes(block, deltas)
    heads = block.attn.heads
    normed = F.layer_norm(x, x.shape[-1:], weights["ln_1.weight"], weights["ln_1.bias"])
    qkv = normed @ weights["attn.in_proj_weight"].T + weights["attn.in_proj_bias"]
    q, k, v = (part.unflatten(-1, (heads, -1)).transpose(1, 2) for part in qkv.chunk(3, dim=-1))
    attended = (q @ k.mT / q.shape[-1] ** 0.5).softmax(-1) @ v
    mixed = attended.transpose(1, 2).flatten(2) @ weights["attn.out_proj.weight"].T
    y = x + mixed + weights["attn.out_proj.bias"]
    normed = F.layer_norm(y, y.shape[-1:], weights["ln_2.weight"], weights["ln_2.bias"])
    hidden = normed @ weights["mlp.c_fc.weight"].T + weights["mlp.c_fc.bias"]
    active = hidden * torch.sigmoid(1.702 * hidden)
    plain = y + active @ weights["mlp.c_proj.weight"].T + weights["mlp.c_proj.bias"]
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-5)
    expected = torch.autograd.grad((plain * target).sum(), learned)
    for a, b in zip(found_gradients, expected, strict=True):
        assert (a - b).abs().max() <= 1e-5 * b.abs().max()


@pytest.mark.parametrize("template", ["a photo of a {}.", ("a {}.", "a drawing of a {}, small.")])
def test_the_text_is_that_of_changed_weights(clip_file: Path, template: str | tuple) -> None:
    """Names of several lengths share the template's words, and the frozen text stays as it was."""
    own, changed = (load_backbone(f"openai:{clip_file}") for _ in range(2))
    lora = build(own)
    model = Student(own, lora, NAMES, template)
    before = model.teacher_text.clone()
    with torch.no_grad():
        for block, deltas in zip(
            changed.text_tower.transformer.blocks, lora().text_deltas, strict=True
        ):
            for name, value in with_changes(block, deltas).items():
                block.get_parameter(name).copy_(value)
        changed.forget()
        expected = Student(changed, None, NAMES, template).teacher_text
        torch.testing.assert_close(model.encode_classes(), expected, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(model.teacher_text, before, rtol=0, atol=0)
        assert (expected - before).abs().max() > 0.01


def test_it_begins_as_the_teacher(own: Backbone) -> None:
    lora = LoRA(
        own.text_tower.width, own.image_tower.width, 1, 1, own.text_tower.layers,
        own.image_tower.layers, generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    side = own.preprocess.resolution
    student, teacher = Student(own, lora, NAMES)(torch.randn(2, 3, side, side))
    torch.testing.assert_close(student.image, teacher.image, rtol=0, atol=1e-6)
    torch.testing.assert_close(student.text, teacher.text, rtol=0, atol=1e-6)


def test_the_published_settings() -> None:
    """As CLIP-LoRA states them: α / √r, and what the optimiser does."""
    recipe = load_recipe("clip-lora")
    prompts, optim = recipe.prompts, recipe.optim
    assert (prompts.rank, prompts.alpha, prompts.dropout) == (2, 1.0, 0.25)
    assert (prompts.targets, prompts.towers) == (("q", "k", "v"), "both")
    assert (optim.optimizer, optim.lr, optim.weight_decay) == ("adamw", 2e-4, 1e-2)
    assert (optim.batch_size, optim.schedule, optim.min_lr) == (32, "steps", 1e-6)
    assert LoRA(8, 8, 8, 8, 1, 1, rank=4, alpha=3.0).scale == 1.5
    changed = {"name", "summary", "paper", "objective"}
    other = load_recipe("lora-ot").model_dump(exclude=changed)
    assert other == recipe.model_dump(exclude=changed)


# What is dropped in training


def test_a_change_sees_a_share_of_its_input() -> None:
    generator = torch.Generator().manual_seed(0)
    low = LowRank(torch.eye(50), torch.eye(50), 1.0, 0.25, generator)
    seen = low(torch.ones(400, 50))
    values = seen.unique()
    torch.testing.assert_close(values, torch.tensor([0, 4 / 3]))
    assert float((seen == 0).float().mean()) == pytest.approx(0.25, abs=0.02)


def loss_of(model: Student, draw: tuple[int, int] | None) -> float:
    from matrix import make_batch

    from promptot.objectives import Objective, build_preservation

    loss = StudentLoss(model, Objective(build_preservation("none"), strength=0.0))
    if draw is not None:
        loss.draw(*draw)
    found: BatchLoss = loss(make_batch(side=model.backbone.preprocess.resolution))
    return float(found.total.detach())


def test_what_is_dropped_hangs_on_the_step_alone(own: Backbone) -> None:
    """So a run that goes on drops what it would have; and outside of training nothing is."""
    model = Student(own, build(own, dropout=0.5), NAMES)
    first, second = loss_of(model, (1, 1)), loss_of(model, (1, 2))
    assert first != second
    assert loss_of(model, (1, 1)) == first
    assert loss_of(Student(own, build(own, dropout=0.5), NAMES), (1, 1)) == first
    other = Student(own, build(own, seed=1, dropout=0.5), NAMES)
    assert loss_of(other, (1, 1)) != first
    side = own.preprocess.resolution
    images = torch.randn(2, 3, side, side)
    with torch.no_grad():
        assert torch.equal(model.encode_images(images), model.encode_images(images))


def test_padded_texts_are_not_computed_again_with_other_entries_dropped() -> None:
    """A tower that could, where memory is short, keeps what it dropped."""
    from promptot.backbones.architecture import PaddedTextShape, TransformerShape
    from promptot.backbones.injection import Injection
    from promptot.backbones.towers.padded_text_tower import PaddedTextTower

    torch.manual_seed(0)
    shape = TransformerShape(32, 2, 2, 64, "gelu")
    tower = PaddedTextTower(
        PaddedTextShape(shape, 50, 10, pad=0, pool="last", hidden_padding=False), 16
    ).requires_grad_(False)
    packed = tower.pack([[1, 2, 3, 4], [1, 5, 4]])
    gradients = []
    for recompute in (False, True):
        lora = LoRA(32, 32, 64, 64, 2, 0, dropout=0.5, generator=torch.Generator().manual_seed(3))
        with torch.no_grad():
            for parameter in lora.parameters():
                parameter.normal_(generator=torch.Generator().manual_seed(4))
        lora.train()
        lora.draw(1, 1)
        tower.recompute = recompute
        out = tower.encode(packed, Injection(text_deltas=lora().text_deltas))
        out.sum().backward()
        gradients.append([parameter.grad for parameter in lora.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_anchor_words_in_several_templates_are_refused(own: Backbone) -> None:
    with pytest.raises(PromptotError, match="read in one template"):
        Student(own, build(own), NAMES, ("a {}.", "one {}."), vocabulary=("apple",))


def test_a_mean_of_runs_has_the_mean_of_their_changes(own: Backbone) -> None:
    parts = [build(own, seed=seed, rank=rank) for seed, rank in ((0, 2), (1, 2), (2, 3))]
    weights = (0.5, 0.3, 0.2)
    found = mean(parts, weights)()
    for tower in ("text_deltas", "image_deltas"):
        for number, block in enumerate(getattr(found, tower)):
            for name, delta in block.items():
                one = [getattr(part(), tower)[number][name].matrix() for part in parts]
                expected = sum(w * matrix for w, matrix in zip(weights, one, strict=True))
                torch.testing.assert_close(delta.matrix(), expected, rtol=1e-5, atol=1e-6)
