"""What every prompt design does with every objective, on a very small random CLIP."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from matrix import (
    DESIGNS,
    NAMES,
    OBJECTIVES,
    SOME,
    TwoBatches,
    check_comes_back,
    learn_and_resume,
    make_batch,
    read_recipe,
    start_model,
    step,
)

from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError


@pytest.fixture(scope="module")
def half(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}", precision="bf16")


@pytest.mark.parametrize(("design", "objective"), SOME)
def test_training(
    small: Backbone, words: Path, tmp_path: Path, design: str, objective: str
) -> None:
    """The loss falls; an interrupted run ends in the same bits; what is saved comes back."""
    recipe = read_recipe(design, objective, words)

    model = learn_and_resume(small, recipe, TwoBatches(), tmp_path)
    batch = make_batch(8)
    constant = read_recipe(design, objective, words, "objective.control=constant")
    with torch.no_grad():
        before = step(start_model(small, recipe), constant, batch)
        after = step(model, constant, batch)
    assert after.total < before.total
    check_comes_back(model, small, batch.images, tmp_path)


@pytest.mark.parametrize(("design", "objective"), SOME)
def test_gradients_reach_every_prompt_and_nothing_else(
    small: Backbone, half: Backbone, words: Path, design: str, objective: str
) -> None:
    """In fp32 and with matrices in bf16, where they differ little."""
    recipe = read_recipe(design, objective, words)
    directions = []
    for backbone in (small, half):
        model = start_model(backbone, recipe)
        result = step(model, recipe, make_batch())
        result.total.backward()
        gradients = [parameter.grad for parameter in model.prompts.parameters()]
        assert all(g is not None and g.isfinite().all() and g.abs().sum() > 0 for g in gradients)
        assert all(parameter.grad is None for parameter in backbone.parameters())
        assert not model.teacher_text.requires_grad
        directions.append(torch.cat([gradient.flatten() for gradient in gradients]))
    exact, close = directions
    assert torch.cosine_similarity(exact, close, dim=0) > 0.98


@pytest.mark.parametrize(("images", "classes"), [(1, 1), (1, 3), (4, 1)])
@pytest.mark.parametrize(("design", "objective"), SOME)
def test_one_class_and_one_image(
    small: Backbone, words: Path, design: str, objective: str, images: int, classes: int
) -> None:
    recipe = read_recipe(design, objective, words)
    model = start_model(small, recipe, NAMES[:classes])
    result = step(model, recipe, make_batch(images, classes))
    result.total.backward()
    assert result.total.isfinite()
    assert result.logits.shape == (images, classes)
    for parameter in model.prompts.parameters():
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


@pytest.mark.parametrize("design", DESIGNS)
def test_new_class_names(small: Backbone, words: Path, design: str) -> None:
    model = start_model(small, read_recipe(design, "cross-entropy", words))
    names = ("hedgehog", "cat", "school bus", "tree")
    features = model.encode_images(make_batch().images)
    if not model.serves(names):
        assert design == "coop-class-specific"
        with pytest.raises(PromptotError, match="can't serve 'hedgehog'"):
            model.for_classes(names)
        return
    other = model.for_classes(names)
    logits = other.logits(features)
    assert logits.shape == (4, 4)
    torch.testing.assert_close(logits[:, 1], model.logits(features)[:, 0])


@pytest.mark.parametrize("objective", [key for key in OBJECTIVES if "vocabulary" in key])
def test_class_specific_prompts_refuse_anchor_words(words: Path, objective: str) -> None:
    with pytest.raises(PromptotError, match="anchor words have no class-specific context"):
        read_recipe("coop-class-specific", objective, words)
