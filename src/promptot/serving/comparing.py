"""One image, any names: what the frozen and the adapted model say of it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from promptot.adaptation.student import Student
from promptot.data.class_names import check_class_names
from promptot.data.images.read_image import ImageLike, load_image
from promptot.errors import PromptotError
from promptot.objectives.fit import Fit
from promptot.runs.classifier import Classifier

KEPT_LISTS = 8
LONGEST_NAME = 200
MOST_NAMES = 1000


@dataclass(frozen=True)
class Comparison:
    """Logits over the same names, [C] each, in their order; `fit` makes probabilities of them."""

    class_names: tuple[str, ...]
    frozen: tuple[float, ...]
    adapted: tuple[float, ...]
    fit: Fit = "softmax"


class Comparer:
    """Runs both models on one image at a time; not to be called from two threads at once.

    Args:
        classifier: the run.
    """

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._preprocess = classifier.model.backbone.preprocess.test()
        self._model = lru_cache(KEPT_LISTS)(self._model_over)

    @torch.no_grad()
    def __call__(self, image: ImageLike, class_names: tuple[str, ...] | None = None) -> Comparison:
        """Read an image and compare both models on it.

        Args:
            image: a file, or anything else that `load_image` takes.
            class_names: to choose among; by default those of the training.

        Raises:
            PromptotError: the image can't be read, or the names can't be used.
        """
        names = class_names or self.classifier.class_names
        model, text = self._model(names)
        pixels = self._preprocess(load_image(image)).unsqueeze(0).to(model.backbone.device)
        patches = model.patch_tokens(pixels)
        frozen = model.encode_frozen(patches)
        adapted = model.encode_images(patches, frozen)
        return Comparison(
            names,
            tuple(model.teacher_logits(frozen)[0].tolist()),
            tuple(model.logits(adapted, text)[0].tolist()),
            model.fit,
        )

    def _model_over(self, names: tuple[str, ...]) -> tuple[Student, Tensor | None]:
        """The model over these names and its text features."""
        model = self.classifier.model
        if names != model.class_names:
            _check_names(names)
            model = model.for_classes(names)
        return model, model.shared_text()


def _check_names(names: tuple[str, ...]) -> None:
    if len(names) > MOST_NAMES:
        raise PromptotError(
            f"{len(names)} class names are more than the page takes.",
            fix=f"Give {MOST_NAMES} at most.",
        )
    longest = max(names, key=len, default="")
    if len(longest) > LONGEST_NAME:
        raise PromptotError(
            f"The class name '{longest[:40]}…' has {len(longest)} characters.",
            fix=f"Shorten it to {LONGEST_NAME} at most.",
        )
    check_class_names(names)
