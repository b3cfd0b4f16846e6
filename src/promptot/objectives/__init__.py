"""The loss: cross-entropy, plus terms that preserve what the frozen model knows.

`Objective` is the loss; a `Preservation` says what is kept. Most of them are `PreserveRows`: which
rows of features (`rows`) × how they are compared (`comparisons`). The published Prompt-OT term is
`JointTransport`.
"""

from __future__ import annotations

from promptot.objectives.build_objective import (
    build_comparison,
    build_control,
    build_preservation,
    build_vocabulary,
)
from promptot.objectives.comparisons import Comparison, Pointwise, Transport, TransportDivergence
from promptot.objectives.features import Features
from promptot.objectives.fit import Fit, fit_loss, probabilities
from promptot.objectives.logit_divergence import LogitDivergence
from promptot.objectives.objective import Objective, ObjectiveResult
from promptot.objectives.objective_state import Stateful
from promptot.objectives.preservation import Preservation, PreservationResult
from promptot.objectives.promptsrc import PromptSRC
from promptot.objectives.rows import JointTransport, PointwiseJoint, PreserveRows
from promptot.objectives.strength import BudgetStrength, RampStrength, StrengthControl
from promptot.objectives.text_cosine import TextCosine
from promptot.objectives.vocabulary_term import VocabularyTerm

__all__ = [
    "BudgetStrength",
    "Comparison",
    "Features",
    "Fit",
    "JointTransport",
    "LogitDivergence",
    "Objective",
    "ObjectiveResult",
    "Pointwise",
    "PointwiseJoint",
    "Preservation",
    "PreservationResult",
    "PreserveRows",
    "PromptSRC",
    "RampStrength",
    "Stateful",
    "StrengthControl",
    "TextCosine",
    "Transport",
    "TransportDivergence",
    "VocabularyTerm",
    "build_comparison",
    "build_control",
    "build_preservation",
    "build_vocabulary",
    "fit_loss",
    "probabilities",
]
