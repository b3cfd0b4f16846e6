"""`PromptClassifier`: adapting and predicting with scikit-learn's conventions."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.base import BaseEstimator, ClassifierMixin, clone
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted

from promptot.backbones import Backbone, load_backbone
from promptot.data import Skipped, load_task
from promptot.data.loader import lost_workers_explained
from promptot.data.readers.in_memory import as_sequence
from promptot.data.readers.labelled_arrays import BadInput, labelled_task
from promptot.devices import pick_device
from promptot.errors import PromptotError
from promptot.recipes import Recipe
from promptot.recipes.recipe_files import Overrides, as_overrides
from promptot.runs.classifier import Adapted, Classifier, ClassNames
from promptot.runs.draw import draw
from promptot.runs.fitting import FitSettings, learn
from promptot.runs.manifest import Manifest
from promptot.runs.run_contents import RunContents


class NotPossible(PromptotError, AttributeError):  # noqa: N818 - what it is, not how it ends
    """What this estimator can't do; an `AttributeError` too, so that `hasattr` says no."""


class PromptClassifier(ClassifierMixin, Adapted, BaseEstimator):
    """A CLIP adapted to images by learned prompts, as a scikit-learn classifier.

    Images are paths, PIL images, arrays or tensors (height × width × channels: 8 bits, or floats
    from 0 to 1), in a list or a batch, or a table with a column of them. The classifier clones,
    cross-validates, sits in pipelines and is pickled like any other; `fit` always starts anew.

    Args:
        recipe: a name (`promptot recipes`), a YAML file or a loaded recipe.
        backbone: a name (`promptot backbones`) or a loaded backbone, which clones share.
        class_names: what the classes are called in prompts: a mapping from label to name, or names
            in the order of the sorted labels; each a name, or a list of a name and its synonyms.
            By default labels are names.
        template: the sentence that the frozen model reads, with `{}` for the name; by default the
            recipe's.
        shots: images per class to learn from; None takes all that are given.
        strength: λ, how strongly what the model knows is preserved; by default the recipe's.
        lr: learning rate; by default the recipe's.
        epochs: how often each image is seen; by default the recipe's.
        overrides: recipe values, as `{"optim": {"lr": 0.002}}` or `("optim.lr=0.002",)`.
        random_state: of shots, start and order: a seed, a generator, or None for other draws each
            time.
        device, precision: see `promptot.fit`; they do not touch a loaded
            backbone.
        workers: processes that read images.

    Attributes:
        classes_: the labels, sorted.
        class_names_: what they are called, in the same order.
        skipped_: images that could not be read, and why.

    Example:
        >>> import numpy as np
        >>> generator = np.random.default_rng(0)
        >>> images = generator.integers(0, 60, (8, 32, 32, 3), np.uint8)
        >>> images[::2] += np.array([190, 0, 0], np.uint8)
        >>> labels = ["red", "black"] * 4
        >>> classifier = PromptClassifier("linear-probe", device="cpu").fit(images, labels)
        >>> classifier.classes_.tolist(), classifier.score(images, labels)
        (['black', 'red'], 1.0)
    """

    def __init__(
        self,
        recipe: str | Recipe = "prompt-ot",
        backbone: str | Backbone = "bundled:tiny",
        *,
        class_names: Mapping[Any, Any] | Sequence[Any] | None = None,
        template: str | None = None,
        shots: int | None = None,
        strength: float | None = None,
        lr: float | None = None,
        epochs: int | None = None,
        overrides: Overrides = (),
        random_state: int | np.random.RandomState | None = 1,
        device: str = "auto",
        precision: str = "fp32",
        workers: int = 0,
    ) -> None:
        self.recipe = recipe
        self.backbone = backbone
        self.class_names = class_names
        self.template = template
        self.shots = shots
        self.strength = strength
        self.lr = lr
        self.epochs = epochs
        self.overrides = overrides
        self.random_state = random_state
        self.device = device
        self.precision = precision
        self.workers = workers

    def fit(self, X: Any, y: Any = None) -> PromptClassifier:
        """Learn prompts from images; what was learned before is forgotten.

        Args:
            X: N images; or, without `y`, anything that `load_task` takes, such as a folder of class
                folders or a table with a column of labels; its training images are learnt from.
            y: N labels: names, or numbers.

        Raises:
            BadInput: images and labels do not fit, or a class has no readable image or no name.
        """
        with _as_bad_input(), lost_workers_explained():
            task, classes = labelled_task(X, y, self.class_names)
            recipe = self._load_recipe()
            template = self.template or task.own_template or recipe.data.template
            task, backbone = load_task(task, template=template), self._load_backbone()
            run = learn(draw(task, backbone, recipe, seed=self._seed()), workers=self.workers)
        manifest = run.manifest.change(task={"labels": classes.tolist()})
        self._contents = replace(run.contents, manifest=manifest)
        self._classifier: Classifier | None = run.classifier
        self.classes_ = classes
        self.class_names_ = self._classifier.class_names
        self.skipped_ = run.skipped
        if run.skipped:
            warnings.warn(_count(run.skipped, "left out"), stacklevel=2)
        return self

    def predict(self, X: Any, class_names: ClassNames | None = None) -> np.ndarray:
        """The likeliest class of each image, [N].

        Args:
            X: N images.
            class_names: names to choose among instead of the classes; any names will do, unless
                what was learned is specific to its classes. Lists are synonyms, the first of which
                names the class.

        Raises:
            BadInput: an image can't be read, or a name can't be used.
        """
        best = self._probabilities(X, class_names).argmax(axis=1)
        if class_names is None:
            return np.asarray(self.classes_[best])
        return np.array([n if isinstance(n, str) else n[0] for n in class_names])[best]

    def predict_proba(self, X: Any, class_names: ClassNames | None = None) -> np.ndarray:
        """The probability of each class, [N, C], in the order of `classes_` or of the names.

        Rows sum to 1, but with `objective.fit=sigmoid`, where each class has one of its own.

        Arguments and errors are those of `predict`.
        """
        return self._probabilities(X, class_names)

    def score(self, X: Any, y: Any = None, sample_weight: Any = None) -> float:
        """Accuracy on images and labels; without `y`, on a source as `fit` takes it.

        Of a source with splits, its test images count.
        """
        if y is None:
            check_is_fitted(self)
            with _as_bad_input():
                task, classes = labelled_task(X, None, None)
                examples = task.test or task.examples
                y = classes[[example.label for example in examples]]
                X = [e.path if e.held is None else e.load() for e in examples]
        return float(super().score(X, y, sample_weight))

    @property
    def classifier(self) -> Classifier:
        """The adapted model itself, as `promptot.load` gives it for a saved run."""
        check_is_fitted(self)
        if self.__dict__.get("_classifier") is None:  # after unpickling
            self._classifier = Classifier.of(self._contents.adapter, self._load_backbone())
        assert self._classifier is not None
        return self._classifier

    @property
    def manifest(self) -> Manifest | None:
        """What it was made with; None of an adapter alone."""
        check_is_fitted(self)
        return self._contents.manifest

    def save(self, folder: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write a run folder, as `promptot fit` does; `load` and `promptot.load` read it.

        Raises:
            PromptotError: it holds a run already, or can't be written.
        """
        check_is_fitted(self)
        self._contents.save(folder, overwrite=overwrite)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        backbone: str | Backbone | None = None,
        **parameters: Any,
    ) -> PromptClassifier:
        """A fitted classifier from a run folder that `save` or `promptot fit` wrote.

        Args:
            folder: the run folder, or its adapter folder.
            backbone: where the adapter belongs; by default loaded by the name on its card.
            parameters: of the classifier, such as `device`.

        Raises:
            PromptotError: there is no adapter, it is damaged, or it belongs to another backbone.
        """
        contents = RunContents.read(folder)
        card, manifest = contents.adapter.card, contents.manifest
        device = pick_device(parameters.get("device", "auto"))
        precision = parameters.get("precision", "fp32")
        classifier = Classifier.of(contents.adapter, backbone, device, precision)
        noted = None if manifest is None else manifest.task.labels
        labels: list[Any] = list(card.class_names) if noted is None else noted
        if len(labels) != len(card.class_names):
            raise PromptotError(
                "The run's manifest is damaged.", fix="Load its adapter folder instead."
            )
        names = [[name, *card.synonyms.get(name, ())] for name in card.class_names]
        known: dict[str, Any] = {
            "recipe": card.recipe_name or "prompt-ot",
            "backbone": backbone or classifier.model.backbone.name,
            "class_names": dict(zip(labels, names, strict=True)),
        }
        loaded = cls(**{**known, **parameters})
        loaded._contents, loaded._classifier = contents, classifier
        loaded.classes_, loaded.class_names_ = np.asarray(labels), card.class_names
        loaded.skipped_ = ()
        return loaded

    def _probabilities(self, X: Any, class_names: ClassNames | None) -> np.ndarray:
        """Probabilities [N, C] in double precision."""
        check_is_fitted(self)
        with _as_bad_input():
            images = as_sequence(X)
            if len(images) == 0:
                raise BadInput("There are no images.", fix="Give one or more in a list.")
            found, skipped = self.classifier.probabilities(images, class_names, self.workers)
            if skipped:
                raise BadInput(_count(skipped, "not readable"), fix="Leave them out.")
        values = found.double().numpy()
        if self.classifier.model.fit == "softmax":
            values = values / values.sum(axis=1, keepdims=True)
        return np.asarray(values)

    def _load_recipe(self) -> Recipe:
        shots = {"data.shots": self.shots}  # None is all of them, whatever the recipe says
        settings = FitSettings(
            data=None,
            recipe=self.recipe,
            strength=self.strength,
            lr=self.lr,
            epochs=self.epochs,
            overrides=[*as_overrides(self.overrides), *as_overrides(shots)],
        )
        return settings.load_recipe()

    def _load_backbone(self) -> Backbone:
        if isinstance(self.backbone, Backbone):
            return self.backbone
        return _cached_backbone(self.backbone, self.device, self.precision)

    def _seed(self) -> int:
        if isinstance(self.random_state, int | np.integer):
            return int(self.random_state)
        return int(check_random_state(self.random_state).randint(2**31 - 1))

    def __getattr__(self, name: str) -> Any:
        if name == "partial_fit":
            raise NotPossible(
                "PromptClassifier can't learn piece by piece: earlier images would be forgotten.",
                fix="Call fit with all images; it starts anew.",
            )
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: parameters and what was learned, not a model that has a name."""
        state: dict[str, Any] = super().__getstate__()
        return {key: value for key, value in state.items() if key != "_classifier"}

    def __sklearn_clone__(self) -> PromptClassifier:
        copied: dict[str, Any] = {
            key: value if isinstance(value, Backbone) else clone(value, safe=False)
            for key, value in self.get_params(deep=False).items()
        }
        return type(self)(**copied)

    def __sklearn_is_fitted__(self) -> bool:
        return "_contents" in vars(self)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.three_d_array = True
        tags.input_tags.string = True
        tags.no_validation = True
        return tags


@lru_cache(maxsize=1)
def _cached_backbone(name: str, device: str, precision: str) -> Backbone:
    """The folds of a cross-validation share one."""
    return load_backbone(name, pick_device(device), precision)


@contextmanager
def _as_bad_input() -> Iterator[None]:
    try:
        yield
    except PromptotError as error:
        raise BadInput(error.problem, fix=error.fix) from error


def _count(skipped: Sequence[Skipped], what: str) -> str:
    first = skipped[0]
    count = "1 image is" if len(skipped) == 1 else f"{len(skipped)} images are"
    return f"{count} {what}. For example '{first.path}': {first.reason}."
