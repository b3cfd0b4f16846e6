"""The loss: cross-entropy, plus a term that preserves what the frozen model knows."""

from __future__ import annotations

from promptot.objectives.build import build_preservation
from promptot.objectives.features import Features
from promptot.objectives.joint_transport import JointSinkhornDivergence, JointTransport
from promptot.objectives.objective import Objective, ObjectiveResult
from promptot.objectives.pointwise import PointwiseJoint
from promptot.objectives.preservation import Preservation, PreservationResult

__all__ = [
    "Features",
    "JointSinkhornDivergence",
    "JointTransport",
    "Objective",
    "ObjectiveResult",
    "PointwiseJoint",
    "Preservation",
    "PreservationResult",
    "build_preservation",
]
