"""The student beside the teacher: templates, anchor words, text per image, other class names."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from promptot.adaptation import Adaptation, CoCoOpPrompts, IVLPPrompts, MaPLePrompts
from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.student import Student
from promptot.backbones import Backbone
from promptot.errors import PromptotError

NAMES = ["cat", "hot dog", "great white shark"]
WORDS = ["apple", "alarm clock", "bridge", "umbrella stand", "cloud"]
TEMPLATES = ["a photo of a {}.", "a drawing of the {}, in colour.", "{}"]

DESIGNS: dict[str, Callable[[], Adaptation | None]] = {
    "none": lambda: None,
    "vision": lambda: IVLPPrompts(64, 128, 0, 0, 2, 2, generator=generator()),
    "ivlp": lambda: IVLPPrompts(64, 128, 2, 2, 2, 2, generator=generator()),
    "maple": lambda: MaPLePrompts(64, 128, 2, 2, fixed_words="of a", generator=generator()),
    "cocoop": lambda: CoCoOpPrompts(64, 32, 2, generator=generator()),
}


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def images(count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def test_several_templates_give_the_normalised_mean(backbone: Backbone) -> None:
    model = Student(backbone, None, NAMES, TEMPLATES)
    single = [Student(backbone, None, NAMES, t).teacher_text for t in TEMPLATES]
    expected = sum(single) / 3
    expected = expected / expected.norm(dim=1, keepdim=True)
    torch.testing.assert_close(model.teacher_text, expected)
    assert model.for_classes(["a", "b"]).template == tuple(TEMPLATES)
    one = Student(backbone, None, NAMES, TEMPLATES[:1])
    assert torch.equal(one.teacher_text, single[0])


def test_the_teachers_text_is_computed_when_it_is_read(backbone: Backbone) -> None:
    read: list[str] = []

    class Recorder:
        def encode(self, text: str) -> list[int]:
            read.append(text)
            return small.tokenizer.encode(text)

    small, backbone = backbone, copy.copy(backbone)
    backbone.tokenizer = Recorder()
    template = "a {} that no other test asks for."  # the backbone remembers what was read
    model = Student(backbone, DESIGNS["ivlp"](), NAMES, template)
    model.logits(model.encode_images(images()))
    sentence = template.replace("{}", NAMES[0])
    assert sentence not in read
    for _ in range(2):
        model(images())
    assert read.count(sentence) == 1


@pytest.mark.parametrize("design", DESIGNS)
def test_anchor_words_are_read_as_class_names_are(backbone: Backbone, design: str) -> None:
    """Their features are those that they have as classes, and leave the classes' as they are."""
    prompts = DESIGNS[design]()
    model = Student(backbone, prompts, NAMES, vocabulary=WORDS)
    alone, _ = model(images())
    for chosen in ([3, 0], [1], [4, 2, 1]):
        student, teacher = model(images(), words=torch.tensor(chosen))
        other = Student(backbone, prompts, [WORDS[i] for i in chosen])
        as_classes = other(images())
        assert student.vocabulary is not None
        assert teacher.vocabulary is not None
        torch.testing.assert_close(student.text, alone.text)
        torch.testing.assert_close(student.vocabulary, as_classes[0].text)
        torch.testing.assert_close(teacher.vocabulary, as_classes[1].text)
        assert not teacher.vocabulary.requires_grad
    assert alone.vocabulary is None


def test_anchor_words_carry_gradients(backbone: Backbone) -> None:
    prompts = DESIGNS["ivlp"]()
    model = Student(backbone, prompts, NAMES, vocabulary=WORDS)
    student, _ = model(images(), words=torch.tensor([2, 0]))
    assert student.vocabulary is not None
    gradients = torch.autograd.grad(student.vocabulary.sum(), list(prompts.text))  # type: ignore
    assert all(gradient.abs().sum() > 0 for gradient in gradients)


def test_class_specific_prompts_have_no_context_for_anchor_words(backbone: Backbone) -> None:
    prompts = IVLPPrompts(64, 128, 2, 1, 0, 0, classes=3)
    with pytest.raises(PromptotError, match="no context for anchor words"):
        Student(backbone, prompts, NAMES, vocabulary=WORDS)


@pytest.mark.parametrize("design", DESIGNS)
def test_logits_are_those_of_training(backbone: Backbone, design: str) -> None:
    backbone = copy.copy(backbone)
    model = Student(backbone, DESIGNS[design](), NAMES)
    with torch.no_grad():
        student, _ = model(images(5))
        features = model.encode_images(images(5))
        expected = student.logits(backbone.logit_scale)
        torch.testing.assert_close(model.logits(features), expected)
        torch.testing.assert_close(model.logits(features, model.shared_text()), expected)
        backbone.tokens_together = 25  # two images at once
        torch.testing.assert_close(model.logits(features), expected)
    assert (model.shared_text() is None) == (design == "cocoop")


def test_text_that_depends_on_the_image_needs_the_image(backbone: Backbone) -> None:
    model = Student(backbone, DESIGNS["cocoop"](), NAMES)
    with pytest.raises(ValueError, match="depends on the image"):
        model.encode_classes()
    text = model.encode_classes(F.normalize(torch.randn(2, 32), dim=-1))
    assert text.shape == (2, 3, 32)
    torch.testing.assert_close(text.norm(dim=-1), torch.ones(2, 3))


def test_each_image_has_the_text_it_has_alone(backbone: Backbone) -> None:
    model = Student(backbone, DESIGNS["cocoop"](), NAMES)
    together, _ = model(images(3))
    for index, image in enumerate(images(3)):
        alone, _ = model(image[None])
        torch.testing.assert_close(together.text[index], alone.text[0])
    assert (together.text[0] - together.text[1]).abs().max() > 1e-5


def test_prompts_of_each_class_serve_any_selection_of_them(backbone: Backbone) -> None:
    prompts = IVLPPrompts(64, 128, 2, 2, 0, 0, classes=3, generator=generator())
    model = Student(backbone, prompts, NAMES)
    assert model.serves(["cat"])
    assert not model.serves(["cat", "dog"])
    some = model.for_classes([NAMES[2], NAMES[0]])
    torch.testing.assert_close(some.encode_classes(), model.encode_classes()[[2, 0]])
    back = some.for_classes(NAMES)
    torch.testing.assert_close(back.encode_classes(), model.encode_classes())
    with pytest.raises(PromptotError, match="parameters for 3 classes, and 2 names"):
        Student(backbone, prompts, NAMES[:2])


def test_a_linear_head_classifies_instead_of_the_text(backbone: Backbone) -> None:
    weight, bias = torch.randn(3, 32), torch.randn(3)
    model = Student(backbone, LinearHead(weight, bias), NAMES)
    features = model.encode_images(images())
    torch.testing.assert_close(model.logits(features), features @ weight.T + bias)
    some = model.for_classes(["great white shark", "cat"])
    torch.testing.assert_close(some.logits(features), model.logits(features)[:, [2, 0]])
    assert model.shared_text() is None
    assert not model.serves(["dog"])
    with pytest.raises(PromptotError, match="can't serve 'dog'"):
        model.for_classes(["dog"])


def test_shared_prompts_serve_any_name(backbone: Backbone) -> None:
    model = Student(backbone, DESIGNS["maple"](), NAMES)
    assert model.serves(["dog"])
    assert model.for_classes(["dog"]).encode_classes().shape == (1, 32)
    assert model.learned is model.prompts


@pytest.mark.parametrize("names", [["cat", ""], ["cat", "word " * 100]])
def test_bad_anchor_words_are_named(backbone: Backbone, names: list[str]) -> None:
    model = Student(backbone, DESIGNS["ivlp"](), NAMES, vocabulary=names)
    with pytest.raises(PromptotError, match=r"is empty|needs \d+ tokens"):
        model(images(), words=torch.tensor([0]))
