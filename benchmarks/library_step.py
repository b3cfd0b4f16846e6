"""A Prompt-OT step in any open_clip architecture: ours against its library's own modules.

Used by `training_step.py --architectures`. The plain way is what a published method would do with
such a model: the library's frozen modules, prompts put into their sequences (`prompted_library`),
texts padded as the library pads them, every position computed in every block, and the teacher a
second pass without prompts; its text features are constants. Both sides share weights, images,
prompts, names and the objective. Weights are random: speed does not depend on them. A tokenizer
from a hub is stood in for by one token a word.
"""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor

from _common import class_names
from prompted_library import context_in_text, prompts_in_image
from promptot.adaptation import IVLPPrompts
from promptot.adaptation.student import Student
from promptot.backbones.backbone import Backbone
from promptot.backbones.loaders.open_clip_models import build_model, convert, load_weights
from promptot.backbones.tokenizer import ClipTokenizer, Tokenizer
from promptot.backbones.towers.text_tower import TextTower
from promptot.objectives import Features, Objective, build_preservation

TOKENS = 4


class WordTokens:
    """One token a word, and an end token: lengths as a tokenizer of many pieces gives them."""

    pad = 1

    def __init__(self, vocabulary: int) -> None:
        self.vocabulary = vocabulary

    def encode(self, text: str) -> list[int]:
        words = text.replace(".", " .").split()
        return [2 + zlib.crc32(word.encode()) % (self.vocabulary - 2) for word in words] + [1]


@contextlib.contextmanager
def small_trunks(smoke: bool) -> Iterator[None]:
    """Where it is only tried whether everything runs, timm's models are built small."""
    import timm

    create = timm.create_model

    def small(name: str, **options: Any) -> Any:
        return create(name, depth=2, embed_dim=64, num_heads=2, **options)

    timm.create_model = small if smoke else create
    try:
        yield
    finally:
        timm.create_model = create


class LibraryStep:
    """Both sides of one architecture.

    Args:
        architecture: of open_clip.
        classes: how many names.
        batch: images a step.
        smoke: sizes that only show that it runs.
    """

    def __init__(self, architecture: str, classes: int, batch: int, smoke: bool = False) -> None:
        config = deepcopy(open_clip.get_model_config(architecture))
        text = config["text_cfg"]
        if smoke:
            text |= {"layers": 2, "width": 64, "heads": 2}
            if config["vision_cfg"].get("timm_proj") == "none":
                config["embed_dim"] = 64
        arguments = {key: value for key, value in config.items() if key != "custom_text"}
        kind = open_clip.CustomTextCLIP if config.get("custom_text") else open_clip.CLIP
        torch.manual_seed(0)
        with small_trunks(smoke):
            self.library = kind(**arguments).eval().requires_grad_(False)
            converted = build_model(config)
        load_weights(converted, self.library.state_dict())
        half = [0.5, 0.5, 0.5]
        open_clip.set_model_preprocess_cfg(converted, {"mean": half, "std": half})
        size = text.get("vocab_size", 49408)
        tokenizer: Tokenizer = WordTokens(size) if "hf_tokenizer_name" in text else ClipTokenizer()
        self.backbone: Backbone = convert(converted, tokenizer, f"open_clip:{architecture}")
        generator = torch.Generator().manual_seed(1)
        side = self.backbone.preprocess.resolution
        self.images = torch.randn(batch, 3, side, side, generator=generator)
        self.labels = torch.randint(classes, (batch,), generator=generator)
        image, words = self.backbone.image_tower, self.backbone.text_tower
        prompts = IVLPPrompts(
            words.width, image.width, TOKENS, words.layers, TOKENS, image.layers,
            generator=torch.Generator().manual_seed(2),
        )  # fmt: skip
        self.names = class_names(classes)
        self.student = Student(self.backbone, prompts, self.names)
        self.objective = Objective(build_preservation("ot"), strength=10.0)
        self.direction = torch.randn(classes, self.backbone.embed_dim, generator=generator)
        self.ids = self._padded(words.starts)
        self.parameters = list(prompts.parameters())

    def _padded(self, starts: int) -> Tensor:
        """Names with four places for the context, filled up to the library's length."""
        length = self.library.context_length
        sequences = self.backbone.tokenize_names(self.names, TOKENS)
        ids = torch.full((len(sequences), length), self.backbone.tokenizer.pad)
        for row, own in zip(ids, sequences, strict=True):
            filled = [*own[:starts], *[2] * TOKENS, *own[starts:]]
            row[: len(filled)] = torch.tensor(filled)
        return ids

    # What is timed, each with its backward pass

    def ours_image(self) -> Tensor:
        tower, injection = self.backbone, self.student.injection()
        with torch.no_grad():
            patches = tower.image_tower.stem(self.images)
            teacher = tower.encode_patches(patches)
        return (tower.encode_patches(patches, injection) - teacher).square().sum()

    def plain_image(self) -> Tensor:
        injection = self.student.injection()
        with torch.no_grad():
            teacher = F.normalize(self.library.encode_image(self.images), dim=-1)
        with prompts_in_image(self.library.visual, injection.image_tokens):
            student = F.normalize(self.library.encode_image(self.images), dim=-1)
        return (student - teacher).square().sum()

    def ours_text(self) -> Tensor:
        return (self.student.encode_classes() * self.direction).sum()

    def plain_text(self) -> Tensor:
        return (self._library_text() * self.direction).sum()

    def _library_text(self) -> Tensor:
        tower = getattr(self.library, "text", self.library)
        context = self.student.injection().text_tokens
        with context_in_text(tower, context, self.backbone.text_tower.starts):
            return F.normalize(self.library.encode_text(self.ids), dim=-1)

    def ours(self) -> Tensor:
        student, teacher = self.student(self.images)
        return self._loss(student, teacher)

    def plain(self) -> Tensor:
        injection = self.student.injection()
        with torch.no_grad():
            image = F.normalize(self.library.encode_image(self.images), dim=-1)
        teacher = Features(image, self.student.teacher_text)
        with prompts_in_image(self.library.visual, injection.image_tokens):
            prompted = F.normalize(self.library.encode_image(self.images), dim=-1)
        return self._loss(Features(prompted, self._library_text()), teacher)

    def _loss(self, student: Features, teacher: Features) -> Tensor:
        own = self.backbone
        result = self.objective(student, teacher, self.labels, own.logit_scale, own.logit_bias)
        return result.total

    def backpropagate(self, loss: Callable[[], Tensor]) -> tuple[float, list[Tensor]]:
        """A loss, and its gradients for the prompts that it depends on."""
        value = loss()
        found = torch.autograd.grad(value, self.parameters, allow_unused=True)
        return float(value.detach()), [gradient for gradient in found if gradient is not None]

    def differences(self, ours: Callable[[], Tensor], plain: Callable[[], Tensor]) -> list[float]:
        """Relative: of the loss, and the largest of the gradients."""
        (one, gradients), (other, expected) = map(self.backpropagate, (ours, plain))
        largest = max(
            float((a - b).abs().max() / b.abs().max())
            for a, b in zip(gradients, expected, strict=True)
        )
        return [abs(one - other) / abs(other), largest]

    def packed_text(self) -> Callable[[], Tensor]:
        """A causal tower of the same blocks over the same names, packed: what padding costs."""
        from promptot.backbones.architecture import TextShape

        own = self.backbone.text_tower
        shape = own.shape  # type: ignore[attr-defined]
        with torch.no_grad():
            tower = TextTower(
                TextShape(shape.transformer, shape.vocabulary, shape.context_length),
                self.backbone.embed_dim,
            )
        tower.requires_grad_(False).eval()
        sequences = self.backbone.tokenize_names(self.names, TOKENS)
        marked = [[2, *own_tokens] for own_tokens in sequences]  # it wants a token that begins
        packed = tower.pack(marked if not own.starts else sequences, prompted=True)

        def loss() -> Tensor:
            return tower.encode(packed, self.student.injection()).square().mean()

        return loss
