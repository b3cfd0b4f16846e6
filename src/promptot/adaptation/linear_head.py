"""A linear probe: logistic regression on the frozen image features."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from promptot.adaptation.adaptation import Arguments
from promptot.adaptation.readout import Readout
from promptot.errors import PromptotError

STRENGTHS = tuple(float(value) for value in np.logspace(-1, 5, 13))
"""Values of C that are tried, half a decade apart."""
FOLDS = 5
MOST_STEPS = 5000


class LinearHead(Readout):
    """Logits v Wᵀ + b of L2-normalised image features v; its classes are fixed.

    The backbone's logit scale and logit bias have no part in them.

    Args:
        weight: [C, D].
        bias: [C].
    """

    name: ClassVar[str] = "linear-probe"

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight, requires_grad=False)
        self.bias = nn.Parameter(bias, requires_grad=False)

    @classmethod
    def empty(cls, classes: int, embed_dim: int) -> LinearHead:
        """A head of zeros, to load weights into."""
        return cls(torch.zeros(classes, embed_dim), torch.zeros(classes))

    @property
    def arguments(self) -> Arguments:
        """What `empty` needs to build a head of this shape."""
        return {"classes": self.classes, "embed_dim": self.weight.shape[1]}

    @property
    def classes(self) -> int:
        return len(self.weight)

    def as_matrix(
        self,
        text: Tensor | None,
        scale: Tensor | None,
        rows: Sequence[int] | None,
        bias: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        if rows is None:
            return self.weight, self.bias
        return self.weight[list(rows)], self.bias[list(rows)]


def fit_linear_probe(
    features: Tensor,
    labels: Tensor,
    classes: int,
    *,
    validation: tuple[Tensor, Tensor] | None = None,
    seed: int = 1,
    strengths: Sequence[float] | None = None,
) -> LinearHead:
    """Fit multinomial logistic regression with an L2 penalty, by L-BFGS.

    The inverse strength of the penalty, C, is the one of `strengths` that classifies the
    validation images best; without any, the best of a stratified cross-validation of up to five
    folds, the folds as many as the rarest class has images. The smaller of two equally good values
    is taken, and C = 1 if a class has only one image. The protocol is that of CLIP's linear probes
    (Radford et al., 2021, arXiv:2103.00020, appendix A.3), on normalised features.

    Args:
        features: L2-normalised image features of the frozen model, [N, D].
        labels: [N] long, each class at least once.
        classes: C, the number of classes.
        validation: features and labels of images to choose the penalty by.
        seed: of the folds.
        strengths: values of C to try, ascending, by default `STRENGTHS`; if there is but one, it is
            taken.

    Raises:
        PromptotError: a class has no image, or a feature is NaN or infinite.

    Example:
        >>> features = torch.eye(3).repeat(4, 1)
        >>> head = fit_linear_probe(features, torch.arange(12) % 3, classes=3)
        >>> head(torch.eye(3)).argmax(dim=1)
        tensor([0, 1, 2])
    """
    strengths = STRENGTHS if strengths is None else strengths
    missing = set(range(classes)) - set(labels.tolist())
    if missing:
        raise PromptotError(
            f"Class number {min(missing) + 1} has no image to fit a linear probe to.",
            fix="Give every class at least one training image.",
        )
    if not features.isfinite().all():
        raise PromptotError(
            "An image feature is not finite.",
            fix="Compute the features in fp32 (--precision fp32).",
        )
    if classes == 1:
        return LinearHead.empty(1, features.shape[1])
    x, y = _array(features), _array(labels)
    if validation is not None and len(validation[1]):
        others = _array(validation[0]), _array(validation[1])
        accuracies = [_fit(x, y, strength).score(*others) for strength in strengths]
    elif len(strengths) == 1:
        accuracies = [1.0]  # there is nothing to choose
    else:
        accuracies = _cross_validate(x, y, seed, strengths)
    best = strengths[int(np.argmax(accuracies))] if accuracies else 1.0
    fitted = _fit(x, y, best)
    weight, bias = fitted.coef_, fitted.intercept_
    if classes == 2:  # scikit-learn gives the difference of the two classes' logits
        weight, bias = np.concatenate([-weight, weight]) / 2, np.concatenate([-bias, bias]) / 2
    tensors = (torch.from_numpy(value).float().to(features.device) for value in (weight, bias))
    return LinearHead(*tensors)


def _cross_validate(
    x: np.ndarray, y: np.ndarray, seed: int, strengths: Sequence[float]
) -> list[float]:
    """Mean accuracy for each of `strengths`; none where a class has but one image."""
    from sklearn.model_selection import StratifiedKFold

    folds = min(FOLDS, int(np.bincount(y).min()))
    if folds < 2:
        return []
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(x, y))
    return [
        float(np.mean([_fit(x[fit], y[fit], c).score(x[test], y[test]) for fit, test in splits]))
        for c in strengths
    ]


def _fit(x: np.ndarray, y: np.ndarray, strength: float) -> Any:
    """A fitted `LogisticRegression`.

    It minimises the mean loss plus |W|² / (2 C N), and stops by the gradient of that: the less
    there is of a penalty, the smaller a gradient it still has at the minimum.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # with hardly any penalty
        warnings.filterwarnings("ignore", "The number of unique classes")  # one or two shots
        tolerance = min(1e-4, 1e-3 / (strength * len(x)))
        return LogisticRegression(C=strength, tol=tolerance, max_iter=MOST_STEPS).fit(x, y)


def _array(tensor: Tensor) -> np.ndarray:
    array: np.ndarray = tensor.detach().cpu().numpy()
    return array.astype(np.float64) if tensor.is_floating_point() else array
