"""A frozen CLIP with prompts, beside the same CLIP without them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from promptot.backbones.backbone import Backbone
from promptot.errors import PromptotError
from promptot.objectives.features import Features
from promptot.prompts.ivlp import IVLPPrompts
from promptot.prompts.tokens import PromptTokens


class PromptedModel(nn.Module):
    """The student (prompted) and the teacher (frozen) over one list of class names.

    Both use the same weights. The teacher reads every class name in `template`; the student reads
    "<learned context> <class name>.", or what the teacher reads if its text tower has no prompts.

    Args:
        backbone: the frozen CLIP.
        prompts: what learns; None makes the student the teacher.
        class_names: C names.
        template: the teacher's sentence, with "{}" for the name.

    Raises:
        PromptotError: a name is empty or too long, or the prompts are specific to other classes.
    """

    teacher_text: Tensor

    def __init__(
        self,
        backbone: Backbone,
        prompts: IVLPPrompts | None,
        class_names: Sequence[str],
        template: str = "a photo of a {}.",
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.prompts = prompts
        self.class_names = tuple(class_names)
        self.template = template
        tokens = self.prompt_tokens()
        if tokens.text and tokens.text[0].dim() == 3 and len(tokens.text[0]) != len(class_names):
            raise PromptotError(
                f"These prompts have a context of their own for each of {len(tokens.text[0])} "
                f"classes and can't serve {len(class_names)} others.",
                fix="Use the class names they were trained on, or train with "
                "prompts.class_specific=false.",
            )
        self.text = (
            backbone.tokenize_names(class_names, tokens.text[0].shape[-2]) if tokens.text else None
        )
        with torch.no_grad():
            teacher_text = backbone.encode_text(backbone.tokenize(class_names, template))
        self.register_buffer("teacher_text", teacher_text, persistent=False)

    def prompt_tokens(self) -> PromptTokens:
        return PromptTokens() if self.prompts is None else self.prompts()

    def forward(
        self, inputs: Tensor, teacher_image: Tensor | None = None
    ) -> tuple[Features, Features]:
        """Features of the student and of the teacher.

        Args:
            inputs: preprocessed images [B, 3, R, R], or their patch tokens [B, N, W] as the stem
                gives them.
            teacher_image: the teacher's image features [B, D], if they are known already.

        Returns:
            student and teacher `Features`: image [B, D] and text [C, D], L2-normalised. Only the
            student's carry gradients, and only to the prompts.
        """
        tokens = self.prompt_tokens()
        with torch.no_grad():
            patches = self.patch_tokens(inputs)
            if teacher_image is None:
                teacher_image = self.backbone.encode_patches(patches)
            teacher = Features(image=teacher_image, text=self.teacher_text)
        image = (
            self.backbone.encode_patches(patches, tokens.vision) if tokens.vision else teacher.image
        )
        return Features(image=image, text=self._encode_text(tokens)), teacher

    def patch_tokens(self, inputs: Tensor) -> Tensor:
        """The stem's output [B, N, W], which prompts never change, of images or of itself."""
        return self.backbone.image_tower.stem(inputs) if inputs.dim() == 4 else inputs

    def encode_images(self, inputs: Tensor) -> Tensor:
        """The student's image features, [B, D]."""
        return self.backbone.encode_patches(self.patch_tokens(inputs), self.prompt_tokens().vision)

    def encode_frozen(self, inputs: Tensor) -> Tensor:
        """The teacher's image features, [B, D]."""
        return self.backbone.encode_patches(self.patch_tokens(inputs))

    def encode_classes(self) -> Tensor:
        """The student's text features, [C, D]."""
        return self._encode_text(self.prompt_tokens())

    def for_classes(self, class_names: Sequence[str], template: str | None = None) -> PromptedModel:
        """The same backbone and prompts over other class names."""
        return PromptedModel(self.backbone, self.prompts, class_names, template or self.template)

    def _encode_text(self, tokens: PromptTokens) -> Tensor:
        if self.text is None:
            return self.teacher_text
        return self.backbone.encode_text(self.text, tokens.text)
