"""Using what was learned: any images, any class names."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from promptot.adapter import CARD, Card, check_backbone, load_adapter
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError
from promptot.model import PromptedModel
from promptot.run import ADAPTER
from promptot.tasks.images import UnreadableImage, load_image
from promptot.tasks.names import check_class_names

KEPT_LISTS = 8
ImageLike = str | os.PathLike[str] | Image.Image


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, the likeliest first.

    Attributes:
        image: its path, or "image <position>".
        class_names, probabilities: the k likeliest; empty if the image could not be read.
        problem: why it could not be read.
    """

    image: str
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    problem: str | None = None


class Classifier:
    """An adapted CLIP, ready to predict.

    Args:
        model: the prompted model.
        card: what the adapter says of itself.
        batch_size: images that are computed together.

    See `promptot.load`.
    """

    def __init__(self, model: PromptedModel, card: Card, batch_size: int = 32) -> None:
        self.model = model.eval()
        self.card = card
        self.batch_size = batch_size
        self._text_features: dict[Hashable, Tensor] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names it was trained on, and predicts among unless told otherwise."""
        return self.model.class_names

    @torch.no_grad()
    def predict(
        self,
        images: Sequence[ImageLike],
        class_names: Sequence[str] | None = None,
        top_k: int = 1,
        progress: Callable[[int], None] = lambda images: None,
    ) -> list[Prediction]:
        """The likeliest classes of each image.

        Args:
            images: paths or PIL images.
            class_names: names to choose among; they need not be those of the training.
            top_k: how many to give.
            progress: called after each batch with the number of images in it.

        Returns:
            one prediction an image, in their order; an unreadable image gets one with a `problem`.

        Raises:
            PromptotError: a class name is empty, repeated or too long.
        """
        names = self.class_names if class_names is None else tuple(class_names)
        if top_k < 1:
            raise PromptotError(f"top_k is {top_k}.", fix="Ask for at least 1.")
        text = self.text_features(names)
        preprocess = self.model.backbone.preprocess.test()
        results: list[Prediction | None] = [None] * len(images)
        waiting: list[tuple[int, Tensor]] = []
        for index, image in enumerate(images):
            try:
                opened = image if isinstance(image, Image.Image) else load_image(os.fspath(image))
                waiting.append((index, preprocess(opened.convert("RGB"))))
            except UnreadableImage as error:
                results[index] = Prediction(error.path, (), (), error.reason)
                progress(1)
            if waiting and (len(waiting) == self.batch_size or index == len(images) - 1):
                probabilities = self._probabilities(torch.stack([x for _, x in waiting]), text)
                values, places = probabilities.topk(min(top_k, len(names)))
                for (position, _), row, best in zip(
                    waiting, values.tolist(), places.tolist(), strict=True
                ):
                    results[position] = Prediction(
                        _name_of(images[position], position),
                        tuple(names[place] for place in best),
                        tuple(row),
                    )
                progress(len(waiting))
                waiting = []
        return [result for result in results if result is not None]

    def text_features(self, class_names: tuple[str, ...]) -> Tensor:
        """The prompted features [C, D] of class names.

        They are computed once, and again when the prompts, the template or the backbone change.
        Those of the last few lists of names are kept.
        """
        model = self.model
        prompts = () if model.prompts is None else tuple(model.prompts.parameters())
        key = (
            class_names,
            model.template,
            model.backbone.weight_hash(),
            model.backbone.precision,
            tuple((tensor.data_ptr(), tensor._version) for tensor in prompts),
        )
        if key not in self._text_features:
            check_class_names(class_names)
            model = (
                self.model
                if class_names == self.class_names
                else self.model.for_classes(class_names)
            )
            with torch.no_grad():
                self._text_features[key] = model.encode_classes()
            while len(self._text_features) > KEPT_LISTS:
                del self._text_features[next(iter(self._text_features))]
        return self._text_features[key]

    def _probabilities(self, images: Tensor, text: Tensor) -> Tensor:
        features = self.model.encode_images(images.to(self.model.backbone.device))
        return (self.model.backbone.logit_scale * features @ text.T).softmax(dim=1).cpu()


def load(
    run: str | os.PathLike[str],
    backbone: Backbone | str | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> Classifier:
    """Load a run's adapter, ready to predict.

    Args:
        run: a run folder that `fit` wrote, or its adapter folder.
        backbone: where the adapter belongs; by default loaded by the name on its card.
        device, precision: see `load_backbone`; they do not touch a loaded backbone.

    Raises:
        PromptotError: there is no adapter, it is damaged, or it belongs to another backbone.
    """
    card, prompts = load_adapter(adapter_folder(run))
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone or card.backbone.name, device, precision)
    check_backbone(card, backbone)
    if prompts is not None:
        prompts.to(backbone.device)
    return Classifier(PromptedModel(backbone, prompts, card.class_names, card.template), card)


def adapter_folder(run: str | os.PathLike[str]) -> Path:
    """The adapter folder of a run folder, or the folder itself if it is an adapter."""
    folder = Path(run)
    inner = folder / ADAPTER
    return folder if (folder / CARD).is_file() or not inner.exists() else inner


def _name_of(image: ImageLike, position: int) -> str:
    return f"image {position}" if isinstance(image, Image.Image) else os.fspath(image)
