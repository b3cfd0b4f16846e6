"""Using what was learned: any images, any class names."""

from __future__ import annotations

import os
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from promptot.adapter import CARD, Card, build_model, load_adapter
from promptot.backbones import Backbone, load_backbone
from promptot.errors import PromptotError
from promptot.model import PromptedModel
from promptot.run import ADAPTER
from promptot.tasks.dataset import Skipped
from promptot.tasks.images import UnreadableImage, load_image
from promptot.tasks.loader import Transform
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
        self._text_features: dict[Hashable, Tensor | None] = {}
        self._models: dict[tuple[str, ...], PromptedModel] = {}

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
        workers: int = 0,
    ) -> list[Prediction]:
        """The likeliest classes of each image.

        Args:
            images: paths or PIL images.
            class_names: names to choose among; they need not be those of the training, unless what
                was learned is specific to its classes.
            top_k: how many to give.
            progress: called after each batch with the number of images in it.
            workers: processes that read images while the model works; worth their start from some
                hundred images on.

        Returns:
            one prediction an image, in their order; an unreadable image gets one with a `problem`.

        Raises:
            PromptotError: a class name is empty, repeated or too long, or can't be served.
        """
        names = self.class_names if class_names is None else tuple(class_names)
        if top_k < 1:
            raise PromptotError(f"top_k is {top_k}.", fix="Ask for at least 1.")
        model = self._model_for(names)
        text = self.text_features(names)
        results: list[Prediction] = []
        loader = DataLoader(
            _Opened(images, model.backbone.preprocess.test()),
            batch_size=self.batch_size,
            num_workers=workers,
            collate_fn=list,
            generator=torch.Generator(),  # so that the global one is left alone
        )
        for opened in loader:
            read = [image for image in opened if isinstance(image, Tensor)]
            rows = iter(self._likeliest(model, text, read, min(top_k, len(names))))
            for image in opened:
                name = _name_of(images[len(results)], len(results))
                if isinstance(image, Tensor):
                    likeliest = next(rows)
                    results.append(Prediction(name, *likeliest))
                else:
                    results.append(Prediction(image.path, (), (), image.reason))
            progress(len(opened))
        return results

    def _likeliest(
        self, model: PromptedModel, text: Tensor | None, images: list[Tensor], k: int
    ) -> list[tuple[tuple[str, ...], tuple[float, ...]]]:
        """Names and probabilities of the k likeliest classes of each image [3, R, R]."""
        if not images:
            return []
        features = model.encode_images(torch.stack(images).to(model.backbone.device))
        values, places = model.logits(features, text).softmax(dim=1).cpu().topk(k)
        return [
            (tuple(model.class_names[place] for place in best), tuple(row))
            for row, best in zip(values.tolist(), places.tolist(), strict=True)
        ]

    def text_features(self, class_names: tuple[str, ...]) -> Tensor | None:
        """The prompted features [C, D] of class names; None where each image has its own text.

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
            with torch.no_grad():
                self._text_features[key] = self._model_for(class_names).shared_text()
            while len(self._text_features) > KEPT_LISTS:
                del self._text_features[next(iter(self._text_features))]
        return self._text_features[key]

    def _model_for(self, class_names: tuple[str, ...]) -> PromptedModel:
        """The model over these names; those of the last few lists are kept."""
        if class_names == self.class_names:
            return self.model
        if class_names not in self._models:
            check_class_names(class_names)
            self._models[class_names] = self.model.for_classes(class_names)
            while len(self._models) > KEPT_LISTS:
                del self._models[next(iter(self._models))]
        return self._models[class_names]


class _Opened(Dataset[Tensor | Skipped]):
    """Images as tensors [3, R, R]; an unreadable one as `Skipped`."""

    def __init__(self, images: Sequence[ImageLike], preprocess: Transform) -> None:
        self.images, self.preprocess = images, preprocess

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Tensor | Skipped:
        image = self.images[index]
        try:
            opened = image if isinstance(image, Image.Image) else load_image(os.fspath(image))
            return self.preprocess(opened.convert("RGB"))
        except UnreadableImage as error:
            return Skipped(error.path, error.reason)


def load(
    run: str | os.PathLike[str],
    backbone: Backbone | str | None = None,
    device: str | torch.device = "cpu",
    precision: str = "fp32",
) -> Classifier:
    """Load a run's adapter, ready to predict.

    Args:
        run: a run folder that `fit` wrote, or its adapter folder, or "hf-hub:user/name" for an
            adapter on the Hugging Face Hub.
        backbone: where the adapter belongs; by default loaded by the name on its card.
        device, precision: see `load_backbone`; they do not touch a loaded backbone.

    Raises:
        PromptotError: there is no adapter, it is damaged, or it belongs to another backbone.
    """
    card, learned = load_adapter(adapter_folder(run))
    if not isinstance(backbone, Backbone):
        backbone = load_backbone(backbone or card.backbone.name, device, precision)
    return Classifier(build_model(card, learned, backbone), card)


def adapter_folder(run: str | os.PathLike[str]) -> Path:
    """The adapter folder of a run folder, or the folder itself if it is an adapter.

    An adapter on the Hub ("hf-hub:user/name") is fetched first.
    """
    if os.fspath(run).startswith("hf-hub:"):
        from promptot.hub import fetch

        return fetch(os.fspath(run))
    folder = Path(run)
    inner = folder / ADAPTER
    return folder if (folder / CARD).is_file() or not inner.exists() else inner


def _name_of(image: ImageLike, position: int) -> str:
    return f"image {position}" if isinstance(image, Image.Image) else os.fspath(image)
