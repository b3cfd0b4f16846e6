"""IVLP prompts, and building them from a recipe."""

from __future__ import annotations

import pytest
import torch

from promptot.adaptation import DESIGNS, IVLPPrompts, build_prompts
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.backbones.tokenizer import ClipTokenizer, tokenize_names, tokenize_template
from promptot.errors import PromptotError
from promptot.recipes import PromptsConfig, Recipe

NAMES = ["cat", "hot dog", "great white shark"]


def section(**values: object) -> PromptsConfig:
    return Recipe.model_validate({"name": "mine", "prompts": values}).prompts


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_the_start_is_the_words_and_noise(backbone: Backbone) -> None:
    prompts = build_prompts(section(text_depth=3, vision_depth=2), backbone, 3, generator())
    ids = backbone.tokenizer.encode("a photo of a")[1:-1]
    words = backbone.text_tower.token_embedding(torch.tensor(ids))
    torch.testing.assert_close(prompts.text[0].detach(), words)
    noise = torch.cat([prompts.text[1].flatten(), prompts.vision[0].flatten()])
    assert 0.017 < noise.std() < 0.023


def test_with_the_words_and_depth_one_the_student_reads_what_the_teacher_reads(
    backbone: Backbone,
) -> None:
    config = section(text_depth=1, vision_tokens=0)
    model = Student(backbone, build_prompts(config, backbone, 3, generator()), NAMES)
    student, teacher = model(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(student.text, teacher.text, rtol=0, atol=1e-6)
    assert student.image is teacher.image


def test_depth_is_cut_to_the_tower(backbone: Backbone) -> None:
    prompts = build_prompts(section(), backbone, 3, generator())
    assert len(prompts.text) == len(prompts.vision) == 3
    coupled = build_prompts(section(design="maple"), backbone, 3, generator())()
    assert len(coupled.text_tokens) == len(coupled.image_tokens) == 3


@pytest.mark.parametrize("tokens", [(4, 0), (0, 3), (4, 3)])
def test_gradients_reach_every_prompt_and_nothing_else(
    backbone: Backbone, tokens: tuple[int, int]
) -> None:
    prompts = IVLPPrompts(64, 128, tokens[0], 2, tokens[1], 3, generator=generator())
    student, teacher = Student(backbone, prompts, NAMES)(torch.randn(2, 3, 32, 32))
    (student.image @ student.text.T).square().sum().backward()
    assert len(list(prompts.parameters())) == (2 if tokens[0] else 0) + (3 if tokens[1] else 0)
    for parameter in prompts.parameters():
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0
    assert not teacher.image.requires_grad
    assert not teacher.text.requires_grad
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_class_specific_context_serves_its_own_classes_only(backbone: Backbone) -> None:
    config = section(class_specific=True, text_depth=2)
    prompts = build_prompts(config, backbone, 3, generator())
    assert prompts.text[0].shape == (3, 4, 64)
    model = Student(backbone, prompts, NAMES)
    with torch.no_grad():
        before = model.encode_classes()
        prompts.text[0][1].neg_()
        after = model.encode_classes()
    changed = (before - after).abs().amax(dim=1) > 1e-4
    assert changed.tolist() == [False, True, False]
    with pytest.raises(PromptotError, match="specific to each of 3 classes and can't serve 'b'"):
        model.for_classes(["cat", "b"])


def test_deep_vision_prompts_change_nothing_before_their_block(backbone: Backbone) -> None:
    """Tokens of block l replace those of block l − 1: with depth 1 they are carried on instead."""
    shallow = IVLPPrompts(64, 128, 0, 0, 2, 1, generator=generator(3))
    deep = IVLPPrompts(64, 128, 0, 0, 2, 3, generator=generator(3))
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        deep.vision[0].copy_(shallow.vision[0])
        a = Student(backbone, shallow, NAMES).encode_images(images)
        b = Student(backbone, deep, NAMES).encode_images(images)
    assert (a - b).abs().max() > 1e-4


@pytest.mark.parametrize(
    ("words", "tokens", "message"),
    [
        ("a photo of a", 5, "'a photo of a' has 4 tokens.*text_tokens is 5.*text_tokens=4"),
        ("hippopotamuses", 1, "'hippopotamuses' has [2-9] tokens.*text_tokens is 1"),
    ],
)
def test_words_that_do_not_fill_the_context_are_an_error(
    backbone: Backbone, words: str, tokens: int, message: str
) -> None:
    config = section(text_tokens=tokens, init_words=words)
    with pytest.raises(PromptotError, match=message):
        build_prompts(config, backbone, 3, generator())


@pytest.mark.parametrize("design", ["ivlp", "maple", "cocoop"])
def test_words_end_a_context_that_is_filled_with_zeros(backbone: Backbone, design: str) -> None:
    config = section(design=design, text_tokens=6, text_depth=1, vision_depth=1, fill="zeros")
    prompts = build_prompts(config, backbone, 3, generator())
    ids = torch.tensor(backbone.tokenizer.encode("a photo of a")[1:-1])
    context = prompts().text_tokens[0].detach()
    assert prompts.fixed_words == ""
    assert context[:2].abs().max() == 0
    torch.testing.assert_close(context[2:], backbone.text_tower.token_embedding(ids))


@pytest.mark.parametrize("design", ["ivlp", "maple", "cocoop"])
def test_words_beyond_the_context_stay_frozen(backbone: Backbone, design: str) -> None:
    config = section(design=design, text_tokens=2, text_depth=1, vision_depth=1)
    prompts = build_prompts(config, backbone, 3, generator())
    assert prompts.fixed_words == "of a"
    ids = backbone.tokenizer.encode("a photo")[1:-1]
    words = backbone.text_tower.token_embedding(torch.tensor(ids))
    torch.testing.assert_close(prompts().text_tokens[0].detach(), words)


@pytest.mark.parametrize("design", DESIGNS)
def test_a_design_is_rebuilt_by_its_arguments(backbone: Backbone, design: str) -> None:
    config = section(design=design, text_tokens=2, text_depth=2)
    prompts = build_prompts(config, backbone, 3, generator())
    again = DESIGNS[design](**prompts.arguments)
    again.load_state_dict(prompts.state_dict())
    assert again.arguments == prompts.arguments
    for a, b in zip(prompts().image_tokens, again().image_tokens, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("design", DESIGNS)
def test_the_start_depends_on_the_generator_alone(backbone: Backbone, design: str) -> None:
    config = section(design=design, init_words=None, text_depth=2)
    started = [build_prompts(config, backbone, 3, generator(seed)) for seed in (1, 1, 2)]
    first, again, other = (torch.cat([p.flatten() for p in x.parameters()]) for x in started)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", " "], "Class name number 2 is empty"),
        ([], "no class names"),
        (["cat", "word " * 100], "needs 10[0-9] tokens.*takes 77.*Shorten it by"),
    ],
)
def test_bad_class_names(backbone: Backbone, names: list[str], message: str) -> None:
    prompts = build_prompts(section(), backbone, len(names), generator())
    for chosen in (prompts, None):
        with pytest.raises(PromptotError, match=message):
            Student(backbone, chosen, names)


def test_a_template_or_a_context_that_is_too_long_is_not_the_names_fault() -> None:
    tokenizer = ClipTokenizer()
    with pytest.raises(PromptotError, match=r"The template 'a a .*\.\.\. alone needs 93 tokens"):
        tokenize_template(tokenizer, ["cat"], "a " * 90 + "{}.", 77)
    with pytest.raises(PromptotError, match=r"The learned context alone needs 83 .*text_tokens"):
        tokenize_names(tokenizer, ["cat"], 80, 77)
    with pytest.raises(PromptotError, match=r"The class name 'cat cat .*\.\.\.' needs 94 tokens"):
        tokenize_template(tokenizer, ["cat " * 90], "a {}.", 77)
