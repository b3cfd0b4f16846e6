"""Images and labels as scikit-learn's users have them, put together as a task."""

from __future__ import annotations

import os
import warnings
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from promptot.data import ImageTask, load_task
from promptot.data.class_names import check_class_names, clean_name
from promptot.data.readers.in_memory import pair
from promptot.data.readers.labelled_images import assemble
from promptot.data.readers.renaming import check_names, rename
from promptot.errors import PromptotError


class BadInput(PromptotError, ValueError):  # noqa: N818 - what it is, not how it ends
    """Images, labels or names that can't be used; a `ValueError` too, as scikit-learn expects."""


def labelled_task(images: Any, labels: Any, class_names: Any) -> tuple[ImageTask, np.ndarray]:
    """A task of images and labels.

    Args:
        images: N images; or, without labels, anything that `load_task` takes.
        labels: N labels, or None.
        class_names: a mapping from label to names, or names in the order of the sorted labels; None
            takes the labels for names.

    Returns:
        the task, and the label of each class [C].

    Raises:
        PromptotError: they do not fit.
        ValueError: the labels are no labels of classes; scikit-learn says why.
    """
    if labels is None:
        task = _load_labelled(images)
        classes = np.array(task.class_names)
        if class_names is not None:
            task = rename(task, check_names(_by_label(class_names, classes)))
        return task, classes
    classes, places = _check_labels(labels)
    names = names_of(class_names, classes)
    if class_names is None and classes.dtype.kind in "iufb":
        warnings.warn(
            f"The classes are called {', '.join(listed[0] for listed in names[:3])}, …: a text "
            "model can make little of numbers. Give class_names={0: 'cat', …}.",
            stacklevel=3,
        )
    task = assemble("images", pair(images, places), [listed[0] for listed in names])
    synonyms = {listed[0]: listed[1:] for listed in names if len(listed) > 1}
    return replace(task, synonyms=synonyms), classes


def names_of(class_names: Any, classes: np.ndarray) -> list[tuple[str, ...]]:
    """The name of each class, and its synonyms.

    Raises:
        PromptotError: there are too few, or one name belongs to two classes.

    Example:
        >>> names_of({1: ["dog", "puppy"]}, np.array([0, 1]))
        [('0',), ('dog', 'puppy')]
    """
    given = {} if class_names is None else check_names(_by_label(class_names, classes))
    cleaned = [clean_name(str(label)) for label in classes]
    names = [given.get(text.casefold(), (text,)) for text in cleaned]
    check_class_names(name for listed in names for name in listed)
    return names


def _check_labels(labels: Any) -> tuple[np.ndarray, list[int]]:
    """The labels, sorted and each once, and the place among them of every image's."""
    from sklearn.utils import check_array
    from sklearn.utils.multiclass import check_classification_targets
    from sklearn.utils.validation import column_or_1d

    y = column_or_1d(labels, warn=True)
    check_array(y, ensure_2d=False, dtype=None, input_name="y")
    check_classification_targets(y)
    classes, places = np.unique(y, return_inverse=True)
    return classes, places.tolist()


def _load_labelled(source: Any) -> ImageTask:
    """A source that brings its own labels."""
    brings = isinstance(source, str | os.PathLike | Mapping | tuple | ImageTask)
    if not brings and not any(hasattr(source, n) for n in ("columns", "classes", "features")):
        raise BadInput(
            "PromptClassifier requires y to be passed, but the target y is None.",
            fix="Give one label per image; or a folder of class folders, or a table with labels.",
        )
    return load_task(source)


def _by_label(class_names: Any, classes: np.ndarray) -> dict[Any, Any]:
    if isinstance(class_names, Mapping):
        return dict(class_names)
    if len(class_names) != len(classes):
        raise BadInput(
            f"There are {len(classes)} classes and {len(class_names)} class names.",
            fix="Give one per class in the order of the sorted labels, or a mapping from label.",
        )
    return dict(zip(classes.tolist(), class_names, strict=True))
