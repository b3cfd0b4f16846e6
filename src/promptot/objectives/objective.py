"""The whole loss: classify the batch, and stay close to the frozen model."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from promptot.errors import PromptotError
from promptot.objectives.features import Features
from promptot.objectives.fit import Fit, fit_loss
from promptot.objectives.objective_state import Stateful
from promptot.objectives.preservation import Preservation, PreservationResult
from promptot.objectives.strength import StrengthControl
from promptot.objectives.vocabulary_term import VocabularyTerm

Combine = Literal["sum", "project"]


@dataclass(frozen=True, eq=False)
class ObjectiveResult:
    """The loss, its parts, and what to log. All are 0-d but for `logits` and `plan`."""

    total: Tensor  # cross_entropy + strength · preservation + …, differentiable
    cross_entropy: Tensor  # of the softmax; or those of the sigmoids, summed over the classes
    preservation: Tensor  # 0 without a preservation term
    strength: Tensor  # λ of this step
    vocabulary: Tensor  # 0 without a vocabulary term
    logits: Tensor  # [B, C], detached
    image_drift: Tensor  # mean over the batch of ‖student − teacher‖, detached
    text_drift: Tensor  # mean over all classes of ‖student − teacher‖, detached
    off_diagonal_mass: Tensor | None  # None where no plan was solved for
    plan_entropy: Tensor | None
    vocabulary_off_diagonal_mass: Tensor | None
    vocabulary_plan_entropy: Tensor | None
    plan: Tensor | None  # [N, N], N = B without a queue


class Objective:
    """L = CE(s · ṽ t̃ᵀ + b, y) + λ · preservation(student, teacher), in fp32 or better.

    16-bit features are raised to fp32 here, whatever precision the towers ran in, and autocast
    is off inside. No gradient flows into the teacher.

    A queue or a control remembers earlier steps: each call is one step for them. `state_dict` holds
    all of it, so that a run goes on exactly where it stopped; to try a call without a trace, load
    the state of before it.

    Args:
        preservation: distance of the student from the teacher; None for cross-entropy alone.
        strength: λ, zero or more. At zero the preservation term is still computed and reported.
        vocabulary: a second term, on the text features of all classes and anchor words.
        vocabulary_strength: factor on that term, zero or more; no control changes it.
        control: changes λ over the steps; None leaves it constant.
        combine: "sum" adds λ times the preservation term. With "project" the total is without it:
            the trainer takes what would raise it out of the gradient, λ times (`backpropagate`).
        fit: what the logits are fitted by, see `fit_loss`; the terms beside it are the same. With
            "sigmoid" CE is the binary cross-entropy of every class, and b should be there: without
            it a cosine's sigmoid is near 1 for every class.

    Raises:
        PromptotError: a strength is negative or not finite.

    Example:
        >>> import torch
        >>> from promptot.objectives import JointTransport
        >>> eye = torch.eye(2)
        >>> features = Features(image=eye, text=eye)
        >>> objective = Objective(JointTransport(), strength=10.0)
        >>> result = objective(features, features, torch.tensor([0, 1]), logit_scale=100.0)
        >>> result.total, result.off_diagonal_mass
        (tensor(0.), tensor(0.))
    """

    def __init__(
        self,
        preservation: Preservation | None,
        strength: float,
        *,
        vocabulary: VocabularyTerm | None = None,
        vocabulary_strength: float = 0.0,
        control: StrengthControl | None = None,
        combine: Combine = "sum",
        fit: Fit = "softmax",
    ) -> None:
        for term, value in (("preservation", strength), ("vocabulary", vocabulary_strength)):
            if not (math.isfinite(value) and value >= 0):
                raise PromptotError(
                    f"The strength of the {term} term is {value}.",
                    fix="Give a number from zero upwards.",
                )
        self.preservation = preservation
        self.strength = strength
        self.vocabulary = vocabulary
        self.vocabulary_strength = vocabulary_strength
        self.control = control
        self.combine = combine
        self.fit = fit

    def __call__(
        self,
        student: Features,
        teacher: Features,
        labels: Tensor,
        logit_scale: Tensor | float,
        logit_bias: Tensor | float | None = None,
    ) -> ObjectiveResult:
        """The loss of one batch.

        Args:
            student: features of the prompted model: the batch [B, D], all classes [C, D] (or
                [B, C, D] where the text depends on the image), this step's anchor words [A, D].
            teacher: features of the frozen model on the same images, classes and words.
            labels: [B] long, class of each image.
            logit_scale: s, the factor on the cosine (CLIP's `logit_scale.exp()`, about 100).
            logit_bias: b, what a model that was trained with a sigmoid loss adds (about -10); None
                adds nothing.

        Raises:
            PromptotError: the shapes don't fit, or a feature is NaN or infinite.
        """
        _check_shapes(student, teacher, labels)
        student, teacher = student.at_least_float32(), teacher.at_least_float32().detach()
        with torch.autocast(device_type=student.image.device.type, enabled=False):
            logits = student.logits(logit_scale, logit_bias)  # [B, C]
            cross_entropy = total = fit_loss(logits, labels, self.fit)
            strength = cross_entropy.new_full((), self.strength)
            kept = words = PreservationResult(torch.zeros_like(cross_entropy))
            if self.preservation is not None:
                kept = self.preservation(student, teacher, labels, logit_scale)
                if self.control is not None:
                    strength = strength * self.control.factor.to(strength)
                    self.control.update(kept.value.detach())
                if self.combine == "sum":
                    total = total + strength * kept.value
            if self.vocabulary is not None:
                words = self.vocabulary(student, teacher)
                total = total + self.vocabulary_strength * words.value
        return ObjectiveResult(
            total=total,
            cross_entropy=cross_entropy,
            preservation=kept.value,
            strength=strength,
            vocabulary=words.value,
            logits=logits.detach(),
            image_drift=_drift(student.image, teacher.image),
            text_drift=_drift(student.text, teacher.text),
            off_diagonal_mass=kept.off_diagonal_mass,
            plan_entropy=kept.plan_entropy,
            vocabulary_off_diagonal_mass=words.off_diagonal_mass,
            vocabulary_plan_entropy=words.plan_entropy,
            plan=kept.plan,
        )

    def state_dict(self) -> dict[str, Tensor]:
        """What later steps depend on, by part and name; empty without a queue or a control."""
        return {
            f"{name}.{key}": value
            for name, part in self._stateful_parts().items()
            for key, value in part.state_dict().items()
        }

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on from what `state_dict` gave.

        Raises:
            PromptotError: it is the state of an objective with other parts, or damaged.
        """
        parts = self._stateful_parts()
        owned: dict[str, dict[str, Tensor]] = {name: {} for name in parts}
        for key, value in state.items():
            name, _, rest = key.partition(".")
            if name not in owned:
                raise PromptotError(
                    f"The stored state of the objective has '{key}', which this one has not.",
                    fix="Resume with the recipe that the run was started with.",
                )
            owned[name][rest] = value
        for name, part in parts.items():
            try:
                part.load_state_dict(owned[name])
                if part.state_dict().keys() != owned[name].keys():
                    raise ValueError("it holds something else too")
            except (KeyError, ValueError, TypeError, RuntimeError) as error:
                raise PromptotError(
                    f"The stored state of the objective's {name} does not fit.",
                    fix="Resume with the recipe that the run was started with, or start again.",
                ) from error

    def _stateful_parts(self) -> dict[str, Stateful]:
        parts = {"preservation": self.preservation, "control": self.control}
        return {name: part for name, part in parts.items() if isinstance(part, Stateful)}


def _drift(student: Tensor, teacher: Tensor) -> Tensor:
    return (student.detach() - teacher).norm(dim=-1).mean()


def _check_shapes(student: Features, teacher: Features, labels: Tensor) -> None:
    ours, theirs = (
        [None if part is None else list(part.shape[-2:]) for part in parts]
        for parts in (
            (student.image, student.text, student.vocabulary),
            (teacher.image, teacher.text, teacher.vocabulary),
        )
    )
    if ours != theirs:
        raise PromptotError(
            f"Student features {ours} and teacher features {theirs} (images, classes, anchor "
            "words) differ in shape.",
            fix="Compute both on the same images, the same classes and the same anchor words.",
        )
    if labels.shape != student.image.shape[:1] or labels.dtype != torch.long:
        raise PromptotError(
            f"Labels of shape {list(labels.shape)} and type {labels.dtype} for "
            f"{len(student.image)} images.",
            fix="Give one torch.long label an image.",
        )
