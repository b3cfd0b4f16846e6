"""Keep each image and its class where the frozen model had them."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult
from promptot.transport.numeric import require_positive


@dataclass(frozen=True)
class PointwiseJoint:
    """η · mean_i ‖a_i − b_i‖² of the joint rows a_i = [image_i ; text of its class].

    This is `JointTransport` with the plan fixed to the identity: an upper bound of it, equal
    wherever the exact plan is the identity.

    Args:
        eta: η, factor on the squared distance.
    """

    eta: float = 0.5

    def __post_init__(self) -> None:
        require_positive(eta=self.eta)

    def __call__(self, student: Features, teacher: Features, labels: Tensor) -> PreservationResult:
        """See `Preservation`; there is no plan to report on."""
        student, teacher = student.at_least_float32(), teacher.at_least_float32()
        drift = student.joint_rows(labels) - teacher.joint_rows(labels)  # [B, 2D]
        return PreservationResult(self.eta * drift.square().sum(dim=1).mean())
