"""Every prompt design, under every kind of objective, on every kind of open_clip's towers.

By default each design meets each kind of tower once, with one objective after the other; the whole
product runs by `-m slow`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import KINDS, QUICK, WITHOUT_TOKENS, Families
from matrix import (
    DESIGNS,
    NAMES,
    TwoBatches,
    check_comes_back,
    learn,
    learn_and_resume,
    make_batch,
    start_model,
    step,
)

from promptot.errors import PromptotError
from promptot.recipes import load_recipe
from promptot.training.estimate import activation_bytes
from promptot.training.loss import scale_of

OBJECTIVES = {
    "cross-entropy": ["objective=none"],
    "ot": ["objective=ot"],
    "pointwise": ["objective=pointwise"],
    "promptsrc": ["objective=promptsrc", "objective.strength=0.1"],
    "text-cosine": ["objective=text-cosine"],
    "sigmoid": ["objective=ot", "objective.fit=sigmoid"],
}
SCHEDULE = ["optim.lr=0.003", "optim.epochs=2", "optim.warmup_epochs=0", "optim.batch_size=4"]


def has_bias(name: str) -> bool:
    return "siglip" in name.lower()


def pairs() -> Iterator[Any]:
    """Each design once on each kind, objectives in turn; of kinds alike in all, fewer."""
    turn = 0
    for name in KINDS:
        for design in DESIGNS:
            known = [key for key in OBJECTIVES if key != "sigmoid" or has_bias(name)]
            chosen = known[turn % len(known)]
            turn += 1
            for objective in known:
                quick = objective == chosen and name.startswith(QUICK)
                marks = [] if quick else pytest.mark.slow
                label = f"{name.partition('/')[0]}-{design}-{objective}"
                yield pytest.param(name, design, objective, marks=marks, id=label)


@pytest.mark.parametrize(("name", "design", "objective"), list(pairs()))
def test_it_learns_stops_and_comes_back(
    families: Families, tmp_path: Path, name: str, design: str, objective: str
) -> None:
    """The loss falls, gradients reach prompts alone; resumed and loaded it has the same bits."""
    _, _, backbone = families(name)
    short = backbone.text_tower.context_length < 20 and design == "coop-class-specific"
    fewer = ["prompts.text_tokens=4"] if short else []
    recipe = load_recipe(design, [*OBJECTIVES[objective], *fewer, *SCHEDULE])
    loader = TwoBatches(6, backbone.preprocess.resolution)
    if design in ("vpt", "ivlp", "maple", "clip-lora") and name.startswith(WITHOUT_TOKENS):
        with pytest.raises(PromptotError, match="takes no prompts|has no blocks") as refused:
            learn(backbone, recipe, loader)
        assert "cocoop" in str(refused.value)
        assert "maple" not in str(refused.value).partition("Take")[2]
        return

    model = learn_and_resume(backbone, recipe, loader, tmp_path)
    start = start_model(backbone, recipe)
    before = step(start, recipe, loader.batch)
    before.total.backward()
    gradients = [parameter.grad for parameter in start.prompts.parameters()]
    assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
    assert all(parameter.grad is None for parameter in backbone.parameters())
    with torch.no_grad():
        after = step(model, recipe, loader.batch)
    assert after.total < before.total
    check_comes_back(model, backbone, loader.batch.images, tmp_path)


@pytest.mark.parametrize(("precision", "cosine"), [("bf16", 0.99), ("fp16", 0.999)])
@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[] if n.startswith(QUICK) else pytest.mark.slow) for n in KINDS],
)
def test_16_bits_point_the_same_way(
    families: Families, name: str, precision: str, cosine: float
) -> None:
    """Gradients with matrices in 16 bits beside those in fp32."""
    _, _, backbone = families(name)
    architecture, _, tag = name.rpartition("/")
    with families.offline(architecture, tag):
        from promptot.backbones import load_backbone

        half = load_backbone(f"open_clip:{name}", precision=precision)
    design = "coop" if name.startswith(WITHOUT_TOKENS) else "ivlp"
    recipe = load_recipe(design, ["objective=ot", *SCHEDULE])
    directions = []
    for own in (backbone, half):
        model = start_model(own, recipe)
        total = step(model, recipe, make_batch(3, side=own.preprocess.resolution)).total
        (total * scale_of(own.precision)).backward()
        found = [parameter.grad for parameter in model.prompts.parameters()]
        directions.append(torch.cat([gradient.flatten() for gradient in found]))
    exact, close = directions
    assert torch.cosine_similarity(exact, close, dim=0) > cosine


@pytest.mark.parametrize("name", KINDS)
def test_context_of_words_is_those_words(families: Families, name: str) -> None:
    """A context that starts as "a photo of a" reads names as the sentence does."""
    _, _, backbone = families(name)
    words = "a photo of a"
    count = len(backbone.tokenizer.encode(words)) - len(backbone.tokenizer.encode(""))
    recipe = load_recipe(
        "coop", [f"prompts.text_tokens={count}", f"prompts.init_words={words}", *SCHEDULE]
    )
    model = start_model(backbone, recipe)
    with torch.no_grad():
        ours = model.encode_classes()
        sentence = backbone.encode_text(backbone.tokenize(NAMES, "a photo of a {}."))
    assert (ours - sentence).abs().max() < 1e-5


@pytest.mark.parametrize(
    "name", ["ViT-B-16-SigLIP/webli", "coca_ViT-B-32/laion2b_s13b_b90k", "nllb-clip-base/v1"]
)
def test_computing_again_changes_no_bit(
    families: Families, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where names are several parts, and each image has a context of its own."""
    _, _, backbone = families(name)
    monkeypatch.setattr("promptot.backbones.towers.padded_text_tower.TOGETHER", 4)
    for design in ("ivlp", "coop-class-specific", "cocoop"):
        recipe = load_recipe(design, ["objective=ot", *SCHEDULE])
        found = []
        for again in (False, True):
            backbone.text_tower.recompute = again
            model = start_model(backbone, recipe)
            step(model, recipe, make_batch(3, side=backbone.preprocess.resolution)).total.backward()
            found.append([parameter.grad for parameter in model.prompts.parameters()])
            kept = activation_bytes(model, 3)
            assert kept > 0
        backbone.text_tower.recompute = False
        for one, other in zip(*found, strict=True):
            assert torch.equal(one, other)
