"""A frozen CLIP: two towers, a tokenizer, and how it wants its images."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from promptot.backbones.architecture import Architecture
from promptot.backbones.build import architecture_of, build_towers
from promptot.backbones.encoders import ImageEncoder, Packed, TextEncoder
from promptot.backbones.identity import (
    FunctionIdentity,
    describe_function,
    describe_structure,
    describe_tokenizer,
)
from promptot.backbones.injection import FROZEN, Injection
from promptot.backbones.preprocess import Preprocess
from promptot.backbones.tokenizer import Tokenizer, tokenize_names, tokenize_template

if TYPE_CHECKING:
    from promptot.data.class_names import TemplateMean

FROZEN_TEXTS = 64
"""Lists of names whose features are remembered; a thousand names of a ViT-B/16 are 2 MB."""
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Backbone(nn.Module):
    """A CLIP whose weights never learn; prompts are passed in from outside.

    One set of weights serves the frozen teacher (no prompts) and the prompted student.

    Attributes:
        name: what it was loaded from, e.g. "bundled:tiny".
        image_tower, text_tower: the two encoders.
        tokenizer: text to token ids.
        preprocess: image to tensor.
        logit_scale: s, the factor on cosine similarities, 0-d.
        logit_bias: b, what is added to s · cosine, 0-d; None of a model that has none. Those that
            were trained with a sigmoid loss have one (about -10); a softmax does not see it.
        precision: of the towers' matrices, one of `PRECISIONS`.
        names_together: class names that are computed together, but in training.
        tokens_together: tokens of class names that are computed together where each image has its
            own text.
    """

    logit_scale: Tensor
    logit_bias: Tensor | None
    names_together: int = 1024
    tokens_together: int = 2**15

    def __init__(
        self,
        name: str,
        image_tower: ImageEncoder,
        text_tower: TextEncoder,
        logit_scale: Tensor,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        logit_bias: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.name = name
        self.image_tower = image_tower
        self.text_tower = text_tower
        self.tokenizer = tokenizer
        self.preprocess = preprocess
        self.register_buffer("logit_scale", logit_scale)
        self.register_buffer("logit_bias", logit_bias)  # in no hash where it is None
        self.precision = "fp32"
        self._weight_hash: str | None = None
        self._tokenizer_known: tuple[Tokenizer, dict[str, str]] | None = None
        self._frozen_texts: OrderedDict[Hashable, Tensor] = OrderedDict()
        self.requires_grad_(False)
        self.eval()

    @classmethod
    def from_weights(
        cls,
        name: str,
        weights: Mapping[str, Tensor],
        architecture: Architecture,
        tokenizer: Tokenizer,
        preprocess: Preprocess,
        stem: nn.Module | None = None,
    ) -> Backbone:
        """A backbone of weights under our names, see `promptot.backbones.layouts`.

        Args:
            weights: a `logit_bias` may be among them.
            stem: the image tower's, where the architecture names none.

        Raises:
            PromptotError: a weight is missing, unknown or of another shape.
        """
        towers = dict(weights)
        scale = towers.pop("logit_scale").float()
        bias = towers.pop("logit_bias", None)
        if bias is not None:
            bias = bias.float().reshape(())  # some save it as [1]
        both = build_towers(architecture, towers, stem)
        return cls(name, *both, scale, tokenizer, preprocess, bias)

    def architecture(self) -> Architecture:
        """The shape of both towers as they are now; raises as `architecture_of`."""
        return architecture_of(self.image_tower, self.text_tower)

    @property
    def embed_dim(self) -> int:
        return self.image_tower.embed_dim

    @property
    def device(self) -> torch.device:
        return self.logit_scale.device

    def train(self, mode: bool = True) -> Backbone:
        """A backbone stays in inference mode, whatever the module around it does."""
        return super().train(False)

    def store_matrices(self, precision: str) -> None:
        """Store the matrices of both towers in a precision; products are computed in it.

        The weight hash stays that of the weights as they were loaded.
        """
        self.weight_hash()
        for tower in (self.image_tower, self.text_tower):
            tower.store_matrices(PRECISIONS[precision])
        self.precision = precision

    def encode_image(self, images: Tensor, injection: Injection = FROZEN) -> Tensor:
        """L2-normalised features [B, D] of preprocessed images [B, 3, R, R]."""
        return self.encode_patches(self.image_tower.stem(images), injection)

    def encode_patches(self, patch_tokens: Tensor, injection: Injection = FROZEN) -> Tensor:
        """L2-normalised features [B, D] of patch tokens [B, N, W], as the stem gives them."""
        return F.normalize(self.image_tower.encode(patch_tokens, injection).float(), dim=-1)

    def encode_text(self, text: Packed, injection: Injection = FROZEN) -> Tensor:
        """L2-normalised features [C, D] of packed class names; [B, C, D] if B images differ."""
        return F.normalize(self.text_tower.encode(text, injection).float(), dim=-1)

    @torch.no_grad()
    def frozen_text(
        self,
        class_names: Sequence[str],
        templates: Sequence[str],
        template_mean: TemplateMean = "normalised",
    ) -> Tensor:
        """L2-normalised features [C, D] of names without learned context.

        Of several templates, the normalised mean of the features in each, which are normalised
        before or not. The last lists that were asked for are remembered: methods that are compared
        read the same ones.
        """
        key = (tuple(class_names), tuple(templates), template_mean, self.precision, self.device)
        if key in self._frozen_texts:
            self._frozen_texts.move_to_end(key)
            return self._frozen_texts[key]
        raw = template_mean == "raw"
        features = [self._encode_names(class_names, text, raw) for text in templates]
        mean = features[0]
        if len(features) > 1 or raw:
            mean = F.normalize(torch.stack(features).mean(dim=0), dim=-1)
        self._frozen_texts[key] = mean
        if len(self._frozen_texts) > FROZEN_TEXTS:
            self._frozen_texts.popitem(last=False)
        return mean

    def _encode_names(self, class_names: Sequence[str], template: str, raw: bool) -> Tensor:
        """Features [C, D], some names at a time, so that memory does not grow with C.

        They are normalised, or as the text tower gives them.
        """
        features = []
        for start in range(0, max(1, len(class_names)), self.names_together):
            text = self.tokenize(class_names[start : start + self.names_together], template)
            features.append(self.text_tower.encode(text).float() if raw else self.encode_text(text))
        return torch.cat(features)

    def tokenize(self, class_names: Sequence[str], template: str = "a photo of a {}.") -> Packed:
        """Class names in a template, packed for `encode_text` without context."""
        return self.text_tower.pack(self.tokenize_template(class_names, template))

    def tokenize_names(
        self, class_names: Sequence[str], context_tokens: int, fixed_words: str = ""
    ) -> list[list[int]]:
        """Token ids of class names behind frozen words, for `context_tokens` learned tokens.

        `pack_names` of some of them gives what `encode_text` reads.
        """
        length, starts = self.text_tower.context_length, self.text_tower.starts
        return tokenize_names(
            self.tokenizer, class_names, context_tokens, length, fixed_words, starts
        )

    def pack_names(self, sequences: Sequence[Sequence[int]], *, prompted: bool = True) -> Packed:
        """Pack what `tokenize_names` gave, for `encode_text` with learned context after [SOS].

        Args:
            prompted: see `TextEncoder.pack`.
        """
        return self.text_tower.pack(sequences, prompted=prompted)

    def tokenize_template(self, class_names: Sequence[str], template: str) -> list[list[int]]:
        """Token ids of class names in a template."""
        tower = self.text_tower
        return tokenize_template(
            self.tokenizer, class_names, template, tower.context_length, tower.starts
        )

    def identity(self) -> FunctionIdentity:
        """What the features depend on, beside the image or the text.

        It is read from the modules, the tokenizer and the preprocessing as they are now. Weights
        and tokenizer are hashed once; the rest takes some milliseconds.
        """
        if self._tokenizer_known is None or self._tokenizer_known[0] is not self.tokenizer:
            self._tokenizer_known = self.tokenizer, describe_tokenizer(self.tokenizer)
        towers = {"image": self.image_tower, "text": self.text_tower}
        function = describe_function(towers, self.preprocess, self._tokenizer_known[1])
        return FunctionIdentity(
            self.weight_hash(), function, describe_structure(self), self.precision
        )

    def forget(self) -> None:
        """Forget what was worked out of the weights; whoever changes these calls it."""
        self._weight_hash = None
        self._frozen_texts.clear()

    def weight_hash(self) -> str:
        """SHA-256 over the names, shapes and values of the weights as loaded, 64 hex digits.

        Equal weights are not an equal function: see `identity`.
        """
        if self._weight_hash is None:
            self._weight_hash = self._hash()
        return self._weight_hash

    def _hash(self) -> str:
        digest = hashlib.sha256()
        for key, value in sorted(self.state_dict().items()):
            digest.update(f"{key}{tuple(value.shape)}".encode())
            digest.update(value.detach().to("cpu", torch.float32).contiguous().numpy())
        return digest.hexdigest()
