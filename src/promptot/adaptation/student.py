"""A frozen CLIP with prompts, beside the same CLIP without them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import cycle
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.adaptation.linear_head import LinearHead
from promptot.adaptation.prompt_design import PromptDesign
from promptot.adaptation.prompt_tokens import PromptTokens
from promptot.backbones.backbone import CLASSES_TOGETHER, Backbone
from promptot.backbones.towers.packing import PackedText
from promptot.backbones.towers.per_image import repeat_for_images
from promptot.errors import PromptotError
from promptot.objectives.features import Features

if TYPE_CHECKING:
    from promptot.data.class_names import TemplateMean

PER_IMAGE_TOKENS = 2**15
"""Tokens of class names that are computed together when each image has its own text."""


class PromptedModel(nn.Module):
    """The student (prompted) and the teacher (frozen) over one list of class names.

    Both use the same weights. The teacher reads every class name in `template`; the student reads
    "<learned context> <fixed words> <class name>.", or what the teacher reads if its text tower has
    no prompts. A linear head classifies instead of the text, if there is one.

    Args:
        backbone: the frozen CLIP.
        prompts: what learns; None makes the student the teacher.
        class_names: C names.
        template: the teacher's sentence, with "{}" for the name. Of several, the teacher's feature
            is the normalised mean of the features of each.
        vocabulary: V anchor words; `forward` can read some of them beside the class names.
        head: a linear classifier of the frozen image features.
        trained_names: the names that class-specific prompts or the head belong to, in their order;
            by default `class_names`.
        synonyms: other names of a class, by its name; both models read all of them, and the class's
            text feature is the normalised mean of their normalised features. A synonym that is
            itself one of `class_names` is left out.
        template_mean: whether features are normalised before the mean over templates.

    Raises:
        PromptotError: a name is empty or too long, what was learned is specific to other classes,
            or class-specific prompts are given anchor words.
    """

    _teacher_text: Tensor | None
    _teacher_vocabulary: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        prompts: PromptDesign | None,
        class_names: Sequence[str],
        template: str | Sequence[str] = "a photo of a {}.",
        vocabulary: Sequence[str] = (),
        head: LinearHead | None = None,
        trained_names: Sequence[str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        template_mean: TemplateMean = "normalised",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompts = prompts
        self.head = head
        self.class_names = tuple(class_names)
        self.template = template if isinstance(template, str) else tuple(template)
        self.template_mean = template_mean
        self.vocabulary = tuple(vocabulary)
        self.trained_names = self.class_names if trained_names is None else tuple(trained_names)
        self.synonyms = {name: tuple(others) for name, others in (synonyms or {}).items()}
        self._rows = self._select_rows()
        self.read_names, self._class_of_name = self._list_names()
        if self.vocabulary and prompts is not None and prompts.classes is not None:
            raise PromptotError(
                "Class-specific prompts have no context for anchor words.",
                fix="Set prompts.class_specific=false, or vocabulary=none.",
            )
        self.register_buffer("_teacher_text", None, persistent=False)
        self.register_buffer("_teacher_vocabulary", None, persistent=False)

        tokens = self.prompt_tokens()
        self._context = tokens.text[0].shape[-2] if tokens.text else 0
        self._names = self._tokenize(self.read_names) if self._context else []
        self._words: list[list[int]] | None = None  # of the vocabulary, once they are needed
        self.text = backbone.pack_names(self._names) if self._context else None
        if self.text is None and head is None:
            self.teacher_text  # noqa: B018 - the student reads it too, and bad names fail here

    def prompt_tokens(self) -> PromptTokens:
        """This step's prompts; class-specific ones are those of `class_names`."""
        tokens = PromptTokens() if self.prompts is None else self.prompts()
        rows = self._rows
        if self.prompts is not None and self.prompts.classes and self._class_of_name:
            own_rows = list(range(len(self.class_names))) if rows is None else rows
            rows = [own_rows[place] for place in self._class_of_name]
        if rows is None or not tokens.text:
            return tokens
        return replace(tokens, text=tuple(own[rows] for own in tokens.text))

    def forward(
        self, inputs: Tensor, teacher_image: Tensor | None = None, words: Tensor | None = None
    ) -> tuple[Features, Features]:
        """Features of the student and of the teacher.

        Args:
            inputs: preprocessed images [B, 3, R, R], or their patch tokens [B, N, W] as the stem
                gives them.
            teacher_image: the teacher's image features [B, D], if they are known already.
            words: positions in `vocabulary` of anchor words to read beside the class names, [A]
                long.

        Returns:
            student and teacher `Features`, L2-normalised: image [B, D], text [C, D] and, if `words`
            are given, vocabulary [A, D]. Text and vocabulary of a student whose prompts depend on
            the image are [B, C, D] and [B, A, D]. Only the student's carry gradients, and only to
            the prompts.
        """
        tokens = self.prompt_tokens()
        with torch.no_grad():
            patches = self.patch_tokens(inputs)
            if teacher_image is None:
                teacher_image = self.backbone.encode_patches(patches)
            read = None if words is None else self.teacher_vocabulary[words]
            teacher = Features(teacher_image, self.teacher_text, read)
        image = (
            self.backbone.encode_patches(patches, tokens.vision) if tokens.vision else teacher.image
        )
        if self.text is None:
            return Features(image, teacher.text, teacher.vocabulary), teacher
        if words is None:
            return Features(image, self._encode_names(tokens, image)), teacher
        text = self._encode_text(self._pack_with(words), tokens, image)
        names, read = text.split([len(self.read_names), len(words)], dim=-2)
        return Features(image, self._average_names(names), read), teacher

    def patch_tokens(self, inputs: Tensor) -> Tensor:
        """The stem's output [B, N, W], which prompts never change, of images or of itself."""
        return self.backbone.image_tower.stem(inputs) if inputs.dim() == 4 else inputs

    def encode_images(self, inputs: Tensor) -> Tensor:
        """The student's image features, [B, D]."""
        return self.backbone.encode_patches(self.patch_tokens(inputs), self.prompt_tokens().vision)

    def encode_frozen(self, inputs: Tensor) -> Tensor:
        """The teacher's image features, [B, D]."""
        return self.backbone.encode_patches(self.patch_tokens(inputs))

    def encode_classes(self, image_features: Tensor | None = None) -> Tensor:
        """The student's text features, [C, D].

        Args:
            image_features: the student's, [B, D]; needed if its text depends on the image. The
                result is [B, C, D] then.
        """
        if self.text is None:
            return self.teacher_text
        return self._encode_names(self.prompt_tokens(), image_features)

    def shared_text(self) -> Tensor | None:
        """What `logits` takes as `text`: `encode_classes()` where all images share it, or None."""
        if self.head is not None or self.prompt_tokens().shift is not None:
            return None
        return self.encode_classes()

    def logits(self, image_features: Tensor, text: Tensor | None = None) -> Tensor:
        """The student's logits [N, C].

        Args:
            image_features: the student's, [N, D].
            text: what `shared_text` gave, to compute it once for many images.
        """
        if self.head is not None:
            head = self.head if self._rows is None else self.head.select(self._rows)
            return head(image_features)
        scale = self.backbone.logit_scale
        if text is None:
            text = self.shared_text()
        if text is not None:
            return Features(image_features, text).logits(scale)
        assert self.text is not None
        images = max(1, PER_IMAGE_TOKENS // len(self.text.suffixes))
        return torch.cat(
            [
                Features(some, self.encode_classes(some)).logits(scale)
                for some in image_features.split(images)
            ]
        )

    @property
    def teacher_text(self) -> Tensor:
        """The teacher's text features [C, D], computed when they are first read."""
        if self._teacher_text is None:
            self._teacher_text = self._average_names(self._encode_templates(self.read_names))
        return self._teacher_text

    @property
    def teacher_vocabulary(self) -> Tensor:
        """The teacher's features of the anchor words [V, D], computed when they are first read."""
        if self._teacher_vocabulary is None:
            self._teacher_vocabulary = self._encode_templates(self.vocabulary)
        return self._teacher_vocabulary

    @property
    def learned(self) -> PromptDesign | LinearHead | None:
        """What an adapter keeps."""
        return self.head if self.prompts is None else self.prompts

    def serves(self, class_names: Sequence[str]) -> bool:
        """Whether `for_classes` can take these names.

        Class-specific prompts and linear heads serve the names they were trained on, and any
        selection of these; everything else serves any names.
        """
        specific = self.learned is not None and self.learned.classes is not None
        return not specific or set(class_names) <= set(self.trained_names)

    def for_classes(
        self,
        class_names: Sequence[str],
        template: str | Sequence[str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> PromptedModel:
        """The same backbone and prompts or head over other class names.

        Args:
            class_names: C names.
            template: by default this model's.
            synonyms: added to this model's, and instead of those of the same class.

        Raises:
            PromptotError: as on construction.
        """
        return PromptedModel(
            self.backbone,
            self.prompts,
            class_names,
            template or self.template,
            head=self.head,
            trained_names=self.trained_names,
            synonyms={**self.synonyms, **(synonyms or {})},
            template_mean=self.template_mean,
        )

    def _list_names(self) -> tuple[list[str], list[int] | None]:
        """Every name that is read, and the place of its class; None if each class has one."""
        own = {name.casefold() for name in self.class_names}
        read, places = [], []
        for place, name in enumerate(self.class_names):
            others = [s for s in self.synonyms.get(name, ()) if s.casefold() not in own]
            read += [name, *others]
            places += [place] * (1 + len(others))
        return read, places if len(read) > len(self.class_names) else None

    def _average_names(self, features: Tensor) -> Tensor:
        """Features of all names that are read [..., N, D], averaged by class [..., C, D]."""
        if self._class_of_name is None:
            return features
        places = torch.tensor(self._class_of_name, device=features.device)
        shape = (*features.shape[:-2], len(self.class_names), features.shape[-1])
        return F.normalize(features.new_zeros(shape).index_add(-2, places, features), dim=-1)

    def _encode_names(self, tokens: PromptTokens, image_features: Tensor | None) -> Tensor:
        """The student's text features [C, D], or [B, C, D] where they depend on the image.

        Without gradients they are computed some at a time, so that memory does not grow with C.
        """
        assert self.text is not None
        if torch.is_grad_enabled() or len(self._names) <= CLASSES_TOGETHER:
            return self._average_names(self._encode_text(self.text, tokens, image_features))
        features = []
        for start in range(0, len(self._names), CLASSES_TOGETHER):
            part = slice(start, start + CLASSES_TOGETHER)
            text = tuple(own[part] if own.dim() == 3 else own for own in tokens.text)
            packed = self.backbone.pack_names(self._names[part])
            features.append(self._encode_text(packed, replace(tokens, text=text), image_features))
        return self._average_names(torch.cat(features, dim=-2))

    def _select_rows(self) -> list[int] | None:
        """Which of the trained classes' parameters belong to `class_names`; None for all of them.

        Also None where no parameter is specific to a class.
        """
        own = None if self.learned is None else self.learned.classes
        if own is None:
            return None
        if own != len(self.trained_names):
            raise PromptotError(
                f"There are parameters for {own} classes, and {len(self.trained_names)} names.",
                fix="Give the class names that were trained on, in their order.",
            )
        rows: dict[str, list[int]] = {}
        for row, name in enumerate(self.trained_names):
            rows.setdefault(name, []).append(row)
        unknown = [name for name in self.class_names if name not in rows]
        if unknown:
            raise PromptotError(
                f"What was learned is specific to each of {own} classes and can't serve "
                f"'{unknown[0]}'.",
                fix="Choose among the class names it was trained on, or train prompts that all "
                "classes share (prompts.class_specific=false).",
            )
        if self.class_names == self.trained_names:
            return None
        counts = Counter(self.class_names)
        alike = [name for name, n in counts.items() if len(rows[name]) > 1 and n != len(rows[name])]
        if alike:
            raise PromptotError(
                f"{len(rows[alike[0]])} of the trained classes are called '{alike[0]}', and "
                f"{counts[alike[0]]} of these: which are meant can't be told.",
                fix="Give all of them, or the class names that were trained on.",
            )
        places = {name: cycle(own) for name, own in rows.items()}
        return [next(places[name]) for name in self.class_names]

    def _tokenize(self, names: Sequence[str]) -> list[list[int]]:
        fixed_words = "" if self.prompts is None else self.prompts.fixed_words
        return self.backbone.tokenize_names(names, self._context, fixed_words)

    def _pack_with(self, words: Tensor) -> PackedText:
        """The class names and these anchor words, in one."""
        if self._words is None:
            self._words = self._tokenize(self.vocabulary)
        return self.backbone.pack_names([*self._names, *(self._words[i] for i in words.tolist())])

    def _encode_text(
        self, text: PackedText, tokens: PromptTokens, image_features: Tensor | None
    ) -> Tensor:
        """Features [N, D], or [B, N, D] where each of the images has a context of its own."""
        if tokens.shift is None:
            return self.backbone.encode_text(text, tokens.text)
        if image_features is None:
            raise ValueError("the text depends on the image: give the image features")
        first = tokens.text[0] + tokens.shift(image_features)[:, None]  # [B, n, W]
        per_image = repeat_for_images(text, len(image_features))
        return self.backbone.encode_text(per_image, (first, *tokens.text[1:]))

    def _encode_templates(self, names: Sequence[str]) -> Tensor:
        """The frozen features of names in every template, averaged, [C, D]."""
        templates = (self.template,) if isinstance(self.template, str) else self.template
        return self.backbone.frozen_text(names, templates, self.template_mean)
