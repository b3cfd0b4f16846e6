"""What an export format is given, and what must come back from it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.errors import PromptotError
from promptot.exporting.fixed import FixedClassifier

ABOUT = "classifier.json"
CLIP_WORDS = ("a", "photo", "of", "a")

Template = str | list[str] | None


@dataclass(frozen=True)
class Content:
    """What is exported.

    Attributes:
        model: over the names to export.
        fixed: the same as an image tower and a matrix.
        vision, text: the learned tokens of each block from the first on, [m, W] and [n, W]; no
            text tokens where they are specific to a class.
        template: how other names are written for a text tower with these tokens; None where what
            was learned serves its own names only, or where the mean over several sentences is one
            that readers of an export do not know.
    """

    model: Student
    fixed: FixedClassifier
    vision: tuple[Tensor, ...]
    text: tuple[Tensor, ...]
    template: Template


@dataclass(frozen=True)
class Read:
    """An export, read back.

    Attributes:
        logits: of preprocessed images [B, 3, R, R], [B, C].
        text: L2-normalised features of any names, [C, D]; None where it has none.
    """

    logits: Callable[[Tensor], Tensor]
    text: Callable[[tuple[str, ...]], Tensor] | None = None


@torch.no_grad()
def describe(model: Student) -> Content:
    """Take a model apart for export.

    Raises:
        PromptotError: it can't be a classifier of fixed names.
    """
    fixed = FixedClassifier(model)
    injection = model.injection()
    shared = [own.detach().cpu().clone() for own in injection.text_tokens if own.dim() == 2]
    vision = [own.detach().cpu().clone() for own in injection.image_tokens]
    return Content(model, fixed, tuple(vision), tuple(shared), _template(model, len(shared)))


def fill(template: str | Sequence[str], names: Sequence[str]) -> list[list[str]]:
    """The names in each template."""
    templates = [template] if isinstance(template, str) else template
    return [[one.replace("{}", name) for name in names] for one in templates]


def _template(model: Student, blocks: int) -> Template:
    """The sentence whose first words the learned context replaces, or the teacher's."""
    if not model.serves_any:
        return None
    if not blocks and not isinstance(model.template, str) and model.template_mean == "raw":
        return None
    if not blocks:
        return model.template if isinstance(model.template, str) else list(model.template)
    count = model.context_tokens
    tokenizer = model.backbone.tokenizer
    around = len(tokenizer.encode(""))  # [SOS] and [EOS], or what this model has of them
    for words in (CLIP_WORDS[:count], *((word,) * count for word in ("x", "a", "the"))):
        if len(tokenizer.encode(" ".join(words))) - around == count:
            return " ".join([*words, *model.adaptation.fixed_words.split(), "{}."])
    raise PromptotError(
        "This backbone's tokenizer has no word that is one token to stand for learned ones.",
        fix="Export it with --format onnx or torchscript.",
    )
