"""The student: a frozen CLIP with an adaptation and a read-out, beside the same CLIP without."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.adaptation.adaptation import Adaptation
from promptot.adaptation.anchor_texts import AnchorTexts
from promptot.adaptation.class_rows import NamesRead, rows_of_classes
from promptot.adaptation.readout import Readout, ScaledCosine
from promptot.backbones.backbone import Backbone
from promptot.backbones.encoders import Packed
from promptot.backbones.injection import Injection
from promptot.errors import PromptotError
from promptot.graphs import at_once
from promptot.objectives.features import Features
from promptot.objectives.fit import Fit, probabilities

if TYPE_CHECKING:
    from promptot.data.class_names import TemplateMean

Learned = Adaptation | Readout
"""What an adapter keeps."""


class Student(nn.Module):
    """The student (adapted) and the teacher (frozen) over one list of class names.

    Both use the same weights. The teacher reads every class name in `template`; the student reads
    `<learned context> <fixed words> <class name>.`, or what the teacher reads where no context
    learns. The read-out makes logits of its features.

    Args:
        backbone: the frozen CLIP.
        learned: an adaptation of the encoders, or a read-out, such as a linear head, on the frozen
            image features; None makes the student the teacher.
        class_names: C names.
        template: the teacher's sentence, with "{}" for the name. Of several, the teacher's feature
            is the normalised mean of the features of each.
        vocabulary: V anchor words; `forward` can read some of them beside the class names.
        trained_names: the names that class-specific parameters belong to, in their order; by
            default `class_names`.
        synonyms: other names of a class, by its name; both models read all of them, and the class's
            text feature is the normalised mean of their normalised features. A synonym that is
            itself one of `class_names` is left out.
        template_mean: whether features are normalised before the mean over templates.
        fit: what the logits are fitted by, and so how they become `probabilities`; both models'.

    Attributes:
        adapts_images: whether the student's image features are not the teacher's.
        text_per_image: whether the student's text features depend on the image.
        packed: the names as the student's text encoder reads them; None where it is the teacher's.

    Raises:
        PromptotError: a name is empty or too long, what was learned is specific to other classes,
            or class-specific prompts are given anchor words.
    """

    _teacher_text: Tensor | None
    _teacher_vocabulary: Tensor | None

    def __init__(
        self,
        backbone: Backbone,
        learned: Learned | None,
        class_names: Sequence[str],
        template: str | Sequence[str] = "a photo of a {}.",
        vocabulary: Sequence[str] = (),
        trained_names: Sequence[str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
        template_mean: TemplateMean = "normalised",
        fit: Fit = "softmax",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.adaptation = learned if isinstance(learned, Adaptation) else Adaptation()
        self.readout = learned if isinstance(learned, Readout) else ScaledCosine()
        self.class_names = tuple(class_names)
        self._sentences = (template,) if isinstance(template, str) else tuple(template)
        self.template = template if isinstance(template, str) else self._sentences
        self.template_mean = template_mean
        self.fit: Fit = fit
        self.vocabulary = tuple(vocabulary)
        self.trained_names = self.class_names if trained_names is None else tuple(trained_names)
        self.synonyms = {name: tuple(others) for name, others in (synonyms or {}).items()}
        self._read = NamesRead(self.class_names, self.synonyms)
        self._rows: list[int] | None = None
        if learned is not None and learned.classes is not None:
            self._rows = rows_of_classes(self.class_names, self.trained_names, learned.classes)
        rows = self._read.expand(self._rows) if self.adaptation.classes is not None else None
        self._names_rows = None if rows is None else rows.to(backbone.device)
        if self.vocabulary and self.adaptation.classes is not None:
            raise PromptotError(
                "Class-specific prompts have no context for anchor words.",
                fix="Set prompts.class_specific=false, or vocabulary=none.",
            )
        self.register_buffer("_teacher_text", None, persistent=False)
        self.register_buffer("_teacher_vocabulary", None, persistent=False)

        injection = self.injection()
        self.adapts_images = injection.changes_images
        self.text_per_image = injection.text_shift is not None
        self.context_tokens = injection.text_tokens[0].shape[-2] if injection.text_tokens else 0
        if injection.changes_text and self.vocabulary and len(self._templates) > 1:
            raise PromptotError(
                "Anchor words are read in one template, and there are several.",
                fix="Set data.templates=one, or vocabulary=none.",
            )
        self._tokens = self._tokenize(self._read.names) if injection.changes_text else []
        self.packed = self._pack(self._tokens) if injection.changes_text else None
        self._words: AnchorTexts | None = None  # of the vocabulary, once they are needed
        if self.packed is None and self.readout.reads_text:
            self.teacher_text  # noqa: B018 - the student reads it too, and bad names fail here

    def injection(self) -> Injection:
        """This step's injection; class-specific tokens are those of the names that are read."""
        injection = self.adaptation()
        rows = self._names_rows
        return injection if rows is None else injection.select_classes(rows)

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
            are given, vocabulary [A, D]. Text and vocabulary of a student whose text depends on
            the image are [B, C, D] and [B, A, D]. Only the student's carry gradients, and only to
            what learns.
        """
        injection = self.injection()
        with torch.no_grad():
            patches = self.patch_tokens(inputs)
            read = None if words is None else self.teacher_vocabulary[words]
        encode = self.backbone.encode_patches
        parts: dict[str, Callable[[], Tensor]] = {}  # none needs another; the longest first
        if self.packed is not None and not self.text_per_image:
            parts["text"] = lambda: self._encode_names(injection, None, words)
        if self.adapts_images:
            parts["image"] = lambda: encode(patches, injection)
        if teacher_image is None:
            parts["teacher"] = torch.no_grad()(lambda: encode(patches))
        found = dict(zip(parts, at_once(*parts.values()), strict=True))

        teacher_image = found["teacher"] if teacher_image is None else teacher_image
        teacher = Features(teacher_image, self.teacher_text, read)
        image = found.get("image", teacher_image)
        if self.packed is None:
            return Features(image, teacher.text, teacher.vocabulary), teacher
        text = found["text"] if "text" in found else self._encode_names(injection, image, words)
        if words is None:
            return Features(image, text), teacher
        names, others = text.split([len(self._tokens), len(words)], dim=-2)
        return Features(image, self._average(names), others), teacher

    def patch_tokens(self, inputs: Tensor) -> Tensor:
        """The stem's output [B, N, W], which nothing learned changes, of images or of itself."""
        return self.backbone.image_tower.stem(inputs) if inputs.dim() == 4 else inputs

    def encode_images(self, inputs: Tensor, frozen: Tensor | None = None) -> Tensor:
        """The student's image features, [B, D].

        Args:
            inputs: as in `forward`.
            frozen: the teacher's image features, [B, D]; given back where they are the student's.
        """
        if frozen is not None and not self.adapts_images:
            return frozen
        return self.backbone.encode_patches(self.patch_tokens(inputs), self.injection())

    def encode_frozen(self, inputs: Tensor) -> Tensor:
        """The teacher's image features, [B, D]."""
        return self.backbone.encode_patches(self.patch_tokens(inputs))

    def encode_classes(self, image_features: Tensor | None = None) -> Tensor:
        """The student's text features, [C, D].

        Args:
            image_features: the student's, [B, D]; needed if its text depends on the image. The
                result is [B, C, D] then.
        """
        if self.packed is None:
            return self.teacher_text
        return self._encode_names(self.injection(), image_features)

    def shared_text(self) -> Tensor | None:
        """What `logits` takes as `text`: `encode_classes()` where all images share it, or None."""
        shared = self.reads_text and not self.text_per_image
        return self.encode_classes() if shared else None

    def logits(self, image_features: Tensor, text: Tensor | None = None) -> Tensor:
        """The student's logits [N, C].

        Args:
            image_features: the student's, [N, D].
            text: what `shared_text` gave, to compute it once for many images.
        """
        scale, bias = self.backbone.logit_scale, self.backbone.logit_bias
        if text is None:
            text = self.shared_text()
        if text is not None or self.packed is None or not self.reads_text:
            return self.readout(image_features, text, scale, self._rows, bias)
        images = max(1, self.backbone.tokens_together // self.packed.tokens)
        return torch.cat(
            [
                self.readout(some, self.encode_classes(some), scale, self._rows, bias)
                for some in image_features.split(images)
            ]
        )

    def teacher_logits(self, image_features: Tensor) -> Tensor:
        """The teacher's logits [N, C] of its image features [N, D]."""
        scale, bias = self.backbone.logit_scale, self.backbone.logit_bias
        return Features(image_features, self.teacher_text).logits(scale, bias)

    def probabilities(self, image_features: Tensor, text: Tensor | None = None) -> Tensor:
        """The student's probabilities [N, C]; arguments are those of `logits`."""
        return probabilities(self.logits(image_features, text), self.fit)

    def as_matrix(self) -> tuple[Tensor, Tensor] | None:
        """A matrix [C, D] and a bias [C] that make logits of the student's image features.

        None where no matrix does: each image has its own text, or the read-out is none.
        """
        if self.reads_text and self.text_per_image:
            return None
        scale, bias = self.backbone.logit_scale, self.backbone.logit_bias
        return self.readout.as_matrix(self.shared_text(), scale, self._rows, bias)

    @property
    def teacher_text(self) -> Tensor:
        """The teacher's text features [C, D], computed when they are first read."""
        if self._teacher_text is None:
            self._teacher_text = self._read.average(self._encode_templates(self._read.names))
        return self._teacher_text

    @property
    def teacher_vocabulary(self) -> Tensor:
        """The teacher's features of the anchor words [V, D], computed when they are first read."""
        if self._teacher_vocabulary is None:
            self._teacher_vocabulary = self._encode_templates(self.vocabulary)
        return self._teacher_vocabulary

    @property
    def read_names(self) -> list[str]:
        """Every name that is read: each class's own, and its synonyms behind it."""
        return self._read.names

    @property
    def reads_text(self) -> bool:
        """Whether the logits depend on text features."""
        return self.readout.reads_text

    @property
    def prompts(self) -> Adaptation | None:
        """The adaptation, if one learns."""
        return self.adaptation if self.adaptation.name else None

    @property
    def learned(self) -> Learned | None:
        """What an adapter keeps; None of a student that is the teacher."""
        return self.prompts or (self.readout if self.readout.name else None)

    @property
    def serves_any(self) -> bool:
        """Whether it serves any class names, not only those that were trained."""
        return self.adaptation.classes is None and self.readout.classes is None

    def serves(self, class_names: Sequence[str]) -> bool:
        """Whether `for_classes` can take these names.

        Class-specific prompts and linear heads serve the names they were trained on, and any
        selection of these; everything else serves any names.
        """
        return self.serves_any or set(class_names) <= set(self.trained_names)

    def for_classes(
        self,
        class_names: Sequence[str],
        template: str | Sequence[str] | None = None,
        synonyms: Mapping[str, Sequence[str]] | None = None,
    ) -> Student:
        """The same backbone and what was learned over other class names.

        Args:
            class_names: C names.
            template: by default this model's.
            synonyms: added to this model's, and instead of those of the same class.

        Raises:
            PromptotError: as on construction.
        """
        return Student(
            self.backbone,
            self.learned,
            class_names,
            template or self.template,
            trained_names=self.trained_names,
            synonyms={**self.synonyms, **(synonyms or {})},
            template_mean=self.template_mean,
            fit=self.fit,
        )

    def pack(self, words: Tensor) -> Packed:
        """The class names and the anchor words at these positions [A], packed in one."""
        assert self.packed is not None, "something learns in the texts"
        if self._words is None:
            self._words = AnchorTexts(self.backbone, self._tokenize(self.vocabulary))
        return self._words.behind(self._tokens, self.packed, words)

    def _encode_names(
        self, injection: Injection, image_features: Tensor | None, words: Tensor | None = None
    ) -> Tensor:
        """The student's text features [C, D], or [B, C, D] where they depend on the image.

        Without gradients they are computed some at a time, so that memory does not grow with C.
        With `words` they are those of all names that are read, not of classes, and the words'.
        """
        if words is not None:
            return self._encode_text(self.pack(words), injection, image_features)
        together = self.backbone.names_together
        if self.packed is not None and (torch.is_grad_enabled() or len(self._tokens) <= together):
            return self._average(self._encode_text(self.packed, injection, image_features))
        features = []
        for start in range(0, len(self._tokens), together):
            part = slice(start, start + together)
            packed = self._pack(self._tokens[part])
            own = injection.select_classes(part)
            features.append(self._encode_text(packed, own, image_features))
        return self._average(torch.cat(features, dim=-2))

    def _encode_text(
        self, text: Packed, injection: Injection, image_features: Tensor | None
    ) -> Tensor:
        """Features [N, D], or [B, N, D] where each of the images has a context of its own."""
        if injection.text_shift is not None:
            if image_features is None:
                raise ValueError("the text depends on the image: give the image features")
            injection = injection.for_images(image_features)
        if self.template_mean == "raw" and len(self._templates) > 1:
            return self.backbone.text_tower.encode(text, injection).float()
        return self.backbone.encode_text(text, injection)

    @property
    def _templates(self) -> tuple[str, ...]:
        """What the student reads every name in; none where it has a context."""
        if self.context_tokens:
            return ()
        return self._sentences

    def _tokenize(self, names: Sequence[str]) -> list[list[int]]:
        """Token ids of names; of all in one template after the other."""
        if self.context_tokens:
            fixed_words = self.adaptation.fixed_words
            return self.backbone.tokenize_names(names, self.context_tokens, fixed_words)
        read = (self.backbone.tokenize_template(names, text) for text in self._templates)
        return [tokens for one in read for tokens in one]

    def _pack(self, tokens: Sequence[Sequence[int]]) -> Packed:
        """Packed so that anchor words, which begin in another way, find their place behind them."""
        prompted = self.context_tokens > 0 or bool(self.vocabulary)
        return self.backbone.pack_names(tokens, prompted=prompted)

    def _average(self, features: Tensor) -> Tensor:
        """Of every name in every template [.., T · N, D] → of every class [.., C, D]."""
        count = len(self._templates)
        if count > 1:
            features = F.normalize(features.unflatten(-2, (count, -1)).mean(dim=-3), dim=-1)
        return self._read.average(features)

    def _encode_templates(self, names: Sequence[str]) -> Tensor:
        """The frozen features of names in every template, averaged, [C, D]."""
        return self.backbone.frozen_text(names, self._sentences, self.template_mean)
