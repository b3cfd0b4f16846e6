"""scikit-learn's own checks of a classifier.

Most of them fit tables of numbers, and `PromptClassifier` takes images. So they run on `OfNumbers`,
which draws each row of a table as an image and leaves everything else as it is. The checks that do
not apply are listed with the reason; those that need no data run on `PromptClassifier` itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import estimator_checks_generator
from sklearn.utils.validation import check_is_fitted, validate_data

from promptot.backbones import Backbone
from promptot.runs.estimator import PromptClassifier

BACKBONE: list[Backbone] = []  # checks make the estimator anew from its parameters

NOT_APPLICABLE = {
    "check_methods_subset_invariance": "matrix products in fp32 round otherwise in another batch; "
    "the check asks for 1e-7, and 1e-4 is what holds (test_estimator.py)",
}
"""Check: why it does not apply."""

WITHOUT_DATA = [
    "check_estimator_cloneable",
    "check_estimator_tags_renamed",
    "check_valid_tag_types",
    "check_estimator_repr",
    "check_no_attributes_set_in_init",
    "check_do_not_raise_errors_in_init_or_set_params",
    "check_mixin_order",
    "check_parameters_default_constructible",
    "check_get_params_invariance",
    "check_set_params",
]


QUICK = ("optim.epochs=1", "optim.batch_size=32", "data.views=1")
MUST_LEARN = {"check_classifiers_train", "check_classifiers_classes"}
"""Checks that ask for accuracy: they take a linear probe, which learns within a test's time."""


class OfNumbers(PromptClassifier):
    """Each row of a table as an image: a grey stripe a column."""

    def fit(self, X: Any, y: Any = None) -> OfNumbers:
        if y is None:
            return super().fit(X, y)
        X, y = validate_data(self, X, y)
        super().fit(self._draw(X), y)
        return self

    def _probabilities(self, X: Any, class_names: Any) -> np.ndarray:
        check_is_fitted(self)
        return super()._probabilities(self._draw(validate_data(self, X, reset=False)), class_names)

    def _load_backbone(self) -> Backbone:
        return BACKBONE[0]

    @staticmethod
    def _draw(X: np.ndarray) -> np.ndarray:
        grey = np.rint(255 / (1 + np.exp(-X.astype(np.float64) / 2))).astype(np.uint8)
        stripes = grey[:, np.arange(32) * X.shape[1] // 32]  # [N, 32]
        return np.repeat(np.repeat(stripes[:, None, :, None], 32, axis=1), 3, axis=3)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.string = False
        tags.no_validation = False
        return tags


@pytest.fixture(autouse=True)
def _use(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    BACKBONE[:] = [backbone]
    monkeypatch.setattr(
        "promptot.adaptation.linear_head.STRENGTHS", (1.0, 1000.0)
    )  # or 13 fits for each


def name_of(check: Callable[..., None]) -> str:
    return (check.func if isinstance(check, partial) else check).__name__


def checks() -> list[Any]:
    estimator = OfNumbers(device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = [check for _, check in estimator_checks_generator(estimator, legacy=True)]
    marks = [
        [pytest.mark.slow] if name_of(check) == "check_classifiers_train" else [] for check in found
    ]
    return [
        pytest.param(check, id=f"{name_of(check)}-{i}", marks=marks[i])
        for i, check in enumerate(found)
    ]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("check", checks())
def test_a_check_of_scikit_learn(check: Callable[..., None]) -> None:
    name = name_of(check)
    if name in NOT_APPLICABLE:
        pytest.skip(NOT_APPLICABLE[name])
    if name in MUST_LEARN:
        check(OfNumbers("linear-probe", device="cpu"))
    else:
        check(OfNumbers(overrides=QUICK, device="cpu"))


@pytest.mark.parametrize("name", WITHOUT_DATA)
def test_a_check_without_data(name: str) -> None:
    check = getattr(estimator_checks, name)
    check("PromptClassifier", PromptClassifier(device="cpu"))


def test_the_list_of_what_does_not_apply_is_up_to_date() -> None:
    known = {name_of(param.values[0]) for param in checks()}
    assert set(NOT_APPLICABLE) <= known
    assert len(known) > 40


def test_images_are_what_it_says_it_takes() -> None:
    tags = clone(PromptClassifier()).__sklearn_tags__()
    assert (tags.input_tags.two_d_array, tags.input_tags.three_d_array) == (False, True)
    assert tags.classifier_tags.multi_class
