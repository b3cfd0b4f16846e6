"""Using what was learned: any images, any class names."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from promptot.adaptation.student import Student
from promptot.backbones import Backbone, load_backbone, load_recorded
from promptot.backbones.trusted import check_named
from promptot.data.class_names import check_class_names
from promptot.data.images.read_image import ImageLike, UnreadableImage, load_image
from promptot.data.loader import Transform, lost_workers_explained
from promptot.data.task import Skipped
from promptot.devices import pick_device
from promptot.errors import PromptotError, warn_of_former_name
from promptot.exporting.export import Export, export_model
from promptot.files.reading import PathLike
from promptot.objectives.fit import NONE_BELOW, Fit
from promptot.runs.adapter import Adapter, load_adapter
from promptot.runs.card import Card
from promptot.runs.hub import adapter_folder, push_adapter
from promptot.runs.manifest import Manifest

KEPT_LISTS, KEPT_NAMES = 8, 2**17
"""Lists of class names whose features are kept, and names in all of them together."""
ClassNames = Sequence[str | Sequence[str]]
"""Names to choose among; several in a list or tuple are synonyms, the first of which is shown."""
Listed = tuple[str | tuple[str, ...], ...]
"""Class names; several in one place are names of the same class."""


@dataclass(frozen=True)
class Prediction:
    """The likeliest classes of one image, the likeliest first.

    Attributes:
        image: its path, or "image <position>".
        class_names, probabilities: the k likeliest; empty if the image could not be read.
        problem: why it could not be read.
        fit: how probabilities come of logits. "softmax": those of all classes sum to 1. "sigmoid",
            of a run whose recipe says so: each is for itself, and they need not.
    """

    image: str
    class_names: tuple[str, ...]
    probabilities: tuple[float, ...]
    problem: str | None = None
    fit: Fit = "softmax"

    @property
    def none_of_these(self) -> bool:
        """Whether no class reaches 0.5; a softmax can't say so, whatever the image shows."""
        if self.fit == "softmax" or not self.probabilities:
            return False
        return self.probabilities[0] < NONE_BELOW


class Adapted(ABC):
    """What holds an adapted model, and can take it to other runtimes and to the Hub."""

    @property
    @abstractmethod
    def classifier(self) -> Classifier:
        """The adapted model, ready to classify."""

    @property
    def manifest(self) -> Manifest | None:
        """What it was made with and what came of it; None where that is not known."""
        return None

    def export(
        self,
        out: PathLike,
        format: str = "onnx",
        class_names: ClassNames | None = None,
        *,
        overwrite: bool = False,
    ) -> Export:
        """Write it as a classifier of fixed names for another runtime; see `promptot.export`."""
        return export_model(
            self.classifier.model_for(class_names),
            out,
            format,
            name=self.classifier.card.backbone.name,
            images=[] if self.manifest is None else self.manifest.training_images(),
            overwrite=overwrite,
        )

    def push_to_hub(
        self, repository: str, *, private: bool = False, token: str | None = None
    ) -> str:
        """Upload the adapter to the Hugging Face Hub; see `promptot.push`."""
        return push_adapter(self.classifier.adapter, repository, private=private, token=token)


class Classifier(Adapted):
    """An adapted CLIP, ready to predict.

    Args:
        model: the student.
        card: what the adapter says of itself.
        batch_size: images that are computed together.

    Example:
        >>> classifier = Classifier.from_pretrained("runs/photos")  # doctest: +SKIP
        >>> classifier.classify(["new.jpg"], ["cat", "red panda"])  # doctest: +SKIP
    """

    def __init__(self, model: Student, card: Card, batch_size: int = 32) -> None:
        self.model = model.eval()
        self.card = card
        self.batch_size = batch_size
        self._text_features: dict[Hashable, Tensor | None] = {}
        self._models: dict[Listed, Student] = {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names it was trained on, and predicts among unless told otherwise."""
        return self.model.class_names

    @classmethod
    def from_pretrained(
        cls,
        run: PathLike,
        backbone: Backbone | str | None = None,
        device: str | torch.device = "auto",
        precision: str = "fp32",
    ) -> Classifier:
        """See `promptot.load`."""
        adapter = load_adapter(adapter_folder(run))
        return cls.of(adapter, backbone, device, precision)

    @classmethod
    def of(
        cls,
        adapter: Adapter,
        backbone: Backbone | str | None = None,
        device: str | torch.device = "auto",
        precision: str = "fp32",
    ) -> Classifier:
        """The classifier of an adapter that is in memory; arguments are those of `load`."""
        named = adapter.card.backbone.name
        if not backbone:
            check_named(named)
        if not isinstance(backbone, Backbone):
            as_on_card = load_recorded if (backbone or named) == named else load_backbone
            backbone = as_on_card(backbone or named, device, precision)
        return cls(adapter.model(backbone), adapter.card)

    @property
    def classifier(self) -> Classifier:
        """Itself."""
        return self

    @property
    def adapter(self) -> Adapter:
        """What was learned, and its card."""
        return Adapter(self.card, self.model.learned)

    def save(self, folder: PathLike) -> None:
        """Write an adapter folder, which `promptot.load` reads.

        Raises:
            PromptotError: the folder holds something else, or can't be written.
        """
        self.adapter.save(folder)

    @torch.no_grad()
    def classify(
        self,
        images: Sequence[ImageLike],
        class_names: ClassNames | None = None,
        top_k: int = 1,
        progress: Callable[[int], None] = lambda images: None,
        workers: int = 0,
    ) -> list[Prediction]:
        """The likeliest classes of each image.

        Args:
            images: paths, PIL images, arrays, …; see `ImageLike`.
            class_names: names to choose among; they need not be those of the training, unless what
                was learned is specific to its classes. Several names in a tuple or list are
                synonyms: their features are averaged, and the first one names the class.
            top_k: how many to give.
            progress: called after each batch with the number of images in it.
            workers: processes that read images while the model works; worth their start from some
                hundred images on.

        Returns:
            one prediction an image, in their order; an unreadable image gets one with a `problem`.
            Of a run with a sigmoid, see `Prediction.none_of_these`.

        Raises:
            PromptotError: a class name is empty, repeated or too long, or can't be served.
        """
        if top_k < 1:
            raise PromptotError(f"top_k is {top_k}.", fix="Ask for at least 1.")
        results: list[Prediction] = []
        for read, names in self._answers(images, class_names, workers):
            for image in read:
                name = _name_of(images[len(results)], len(results))
                if isinstance(image, Skipped):
                    unread = Prediction(image.path, (), (), image.reason, self.model.fit)
                    results.append(unread)
                    continue
                values, places = image.topk(min(top_k, len(names)))
                best = tuple(names[place] for place in places.tolist())
                results.append(Prediction(name, best, tuple(values.tolist()), fit=self.model.fit))
            progress(len(read))
        return results

    def predict(self, *arguments: Any, **more: Any) -> list[Prediction]:
        """The former name of `classify`."""
        warn_of_former_name("Classifier.predict", "Classifier.classify")
        return self.classify(*arguments, **more)

    @torch.no_grad()
    def probabilities(
        self, images: Sequence[ImageLike], class_names: ClassNames | None = None, workers: int = 0
    ) -> tuple[Tensor, tuple[Skipped, ...]]:
        """The probability of every class for each image.

        Arguments and errors are those of `classify`.

        Returns:
            probabilities [N, C] in the order of the images and of the names, NaN for an image that
            can't be read; and those images. Rows sum to 1, but of a run with a sigmoid, where each
            is the probability that the image shows this class.
        """
        rows: list[Tensor] = []
        skipped: list[Skipped] = []
        names: tuple[str, ...] = self.model_for(class_names).class_names
        for read, _ in self._answers(images, class_names, workers):
            skipped += [image for image in read if isinstance(image, Skipped)]
            unknown = torch.full((len(names),), torch.nan)
            rows += [unknown if isinstance(image, Skipped) else image for image in read]
        return torch.stack(rows) if rows else torch.empty(0, len(names)), tuple(skipped)

    def predict_proba(self, *arguments: Any, **more: Any) -> tuple[Tensor, tuple[Skipped, ...]]:
        """The former name of `probabilities`."""
        warn_of_former_name("Classifier.predict_proba", "Classifier.probabilities")
        return self.probabilities(*arguments, **more)

    def _answers(
        self, images: Sequence[ImageLike], class_names: ClassNames | None, workers: int
    ) -> Iterator[tuple[list[Tensor | Skipped], tuple[str, ...]]]:
        """Batch by batch, each image's probabilities [C], and the names of the classes."""
        listed = self._listed(class_names)
        model = self._model_for(listed)
        text = self.text_features(listed)
        loader = DataLoader(
            _Opened(images, model.backbone.preprocess.test()),
            batch_size=self.batch_size,
            num_workers=workers,
            collate_fn=list,
            generator=torch.Generator(),  # so that the global one is left alone
        )
        with lost_workers_explained():
            for opened in loader:
                read = [image for image in opened if isinstance(image, Tensor)]
                if read:
                    features = model.encode_images(torch.stack(read).to(model.backbone.device))
                    found = iter(model.probabilities(features, text).cpu())
                yield (
                    [next(found) if isinstance(image, Tensor) else image for image in opened],
                    model.class_names,
                )

    def model_for(self, class_names: ClassNames | None = None) -> Student:
        """The model over other names; arguments and errors are those of `classify`."""
        return self._model_for(self._listed(class_names))

    def _listed(self, class_names: ClassNames | None) -> Listed:
        return self.class_names if class_names is None else as_listed(class_names)

    def text_features(self, class_names: Listed) -> Tensor | None:
        """The prompted features [C, D] of class names; None where each image has its own text.

        They are computed once, and again when the prompts, the template or the backbone change.
        Those of the last few lists of names are kept.
        """
        model = self.model
        key = (
            class_names,
            model.template,
            model.backbone.identity().digest,
            tuple((tensor.data_ptr(), tensor._version) for tensor in model.adaptation.parameters()),
        )
        if key not in self._text_features:
            with torch.no_grad():
                self._text_features[key] = self._model_for(class_names).shared_text()
            _drop_oldest(self._text_features, lambda kept: len(kept[0]))
        return self._text_features[key]

    def _model_for(self, class_names: Listed) -> Student:
        """The model over these names; those of the last few lists are kept."""
        if class_names == self.class_names:
            return self.model
        if class_names not in self._models:
            listed = [(name,) if isinstance(name, str) else name for name in class_names]
            check_class_names(name for names in listed for name in names or [""])
            synonyms = {names[0]: names[1:] for names in listed if len(names) > 1}
            own = [names[0] for names in listed]
            self._models[class_names] = self.model.for_classes(own, synonyms=synonyms)
            _drop_oldest(self._models, len)
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
            return self.preprocess(load_image(image, _name_of(image, index)))
        except UnreadableImage as error:
            return Skipped(error.path, error.reason)


def load(
    run: PathLike,
    backbone: Backbone | str | None = None,
    device: str | torch.device = "auto",
    precision: str = "fp32",
) -> Classifier:
    """Load a run's adapter, ready to predict.

    Args:
        run: a run folder that `fit` wrote, or its adapter folder, or "hf-hub:user/name" for an
            adapter on the Hugging Face Hub.
        backbone: where the adapter belongs; by default loaded by the name on its card, if that is
            a bundled model, weights of open_clip's list that are downloaded already, or one that
            you have loaded by this name on this machine before.
        device, precision: see `load_backbone`; they do not touch a loaded backbone.

    Raises:
        UnaskedBackbone: the card names another one than these, and `backbone` is not given.
        PromptotError: there is no adapter, it is damaged, or it belongs to another backbone.
    """
    return Classifier.from_pretrained(run, backbone, device, precision)


def classifier_of(
    run: PathLike | Adapted,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    precision: str = "fp32",
) -> Classifier:
    """The classifier itself, that of a run in memory, or `load`ed from a folder or the Hub."""
    if isinstance(run, Adapted):
        return run.classifier
    return load(run, backbone, pick_device(device), precision)


def predict(
    run: PathLike | Adapted,
    images: Sequence[ImageLike],
    class_names: ClassNames | None = None,
    *,
    top_k: int = 1,
    backbone: Backbone | str | None = None,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
) -> list[Prediction]:
    """The likeliest classes of images, by a run.

    Args:
        run: a run folder that `fit` wrote, its adapter folder, "hf-hub:user/name", a `Run`, a
            `Classifier` or a fitted `PromptClassifier`.
        images, class_names, top_k, workers: see `Classifier.classify`.
        backbone, device, precision: see `load`; they do not touch what is loaded.

    Returns:
        one prediction an image, in their order; an unreadable image gets one with a `problem`.

    Raises:
        PromptotError: there is no adapter, or a class name can't be used.
    """
    classifier = classifier_of(run, backbone, device, precision)
    return classifier.classify(images, class_names, top_k, workers=workers)


def _drop_oldest(kept: dict[Any, Any], names: Callable[[Any], int]) -> None:
    """Keep the last few entries, and fewer of long lists; the last one always."""
    while len(kept) > 1 and (len(kept) > KEPT_LISTS or sum(map(names, kept)) > KEPT_NAMES):
        del kept[next(iter(kept))]


def _name_of(image: ImageLike, position: int) -> str:
    """A path, or "image <position>"."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else f"image {position}"


def as_listed(class_names: ClassNames) -> Listed:
    """Class names, or lists of a name and its synonyms, as something that can be a key."""
    return tuple(n if isinstance(n, str) else tuple(n) for n in class_names)
