"""Which rows are compared, and how: the preservation terms of the Prompt-OT family.

The published term is `JointTransport`: each image's features and those of its class's text make one
row, and transport moves the student's rows onto the teacher's. Everything else here is a variation:
other rows, another comparison, or more rows than one batch has.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import torch
from torch import Tensor

from promptot.errors import PromptotError, nearest
from promptot.objectives.compare import compare
from promptot.objectives.comparisons import Comparison, Pointwise, Transport
from promptot.objectives.feature_queue import FeatureQueue
from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult, pooled
from promptot.transport import TransportPlan, TransportProblem, solve_exact

Rows = Literal["joint", "image", "text", "separate"]

# From joint rows [N, 2D] to the populations that are compared.
ROWS: dict[str, Callable[[Tensor], tuple[Tensor, ...]]] = {
    "joint": lambda rows: (rows,),
    "image": lambda rows: rows.chunk(2, dim=1)[:1],
    "text": lambda rows: rows.chunk(2, dim=1)[1:],
    "separate": lambda rows: rows.chunk(2, dim=1),
}


class PreserveRows:
    """Compare the student's rows of a batch with the teacher's rows of the same batch.

    With a queue of Q rows the comparison is between the last Q rows of both models, of which only
    the B current ones carry a gradient. A population of N rows gives each the weight 1/N; the
    *gradient* of the value is therefore multiplied by N/B, so that a current row weighs the 1/B
    that it weighs without a queue, and λ means the same. The value itself stays the mean over the
    population, so that it can be read beside that of another queue.

    Args:
        comparison: of two sets of rows.
        rows: "joint" [image ; text of its class], "image", "text" (of the batch's classes, once an
            image), or "separate": image and text each for itself, their values added. Point-wise
            that equals "joint"; with exact plans it is at most that, and diagnostics are means.
        queue: Q ≤ 4096, the current batch included; None compares the batch alone.

    Raises:
        PromptotError: `rows` or `queue` is not one of those.

    Example:
        >>> teacher = Features(image=torch.eye(3), text=torch.eye(3))
        >>> student = Features(image=0.9 * torch.eye(3), text=torch.eye(3))
        >>> term = PreserveRows(Transport(), rows="text")
        >>> term(student, teacher, labels=torch.arange(3)).value
        tensor(0.)
    """

    def __init__(
        self, comparison: Comparison, rows: Rows = "joint", queue: int | None = None
    ) -> None:
        if rows not in ROWS:
            raise PromptotError(f"There are no rows '{rows}'.", fix=nearest(rows, ROWS))
        self.comparison = comparison
        self.rows = rows
        self.queue = None if queue is None else FeatureQueue(queue)

    def __call__(
        self,
        student: Features,
        teacher: Features,
        labels: Tensor,
        logit_scale: Tensor | float = 1.0,
    ) -> PreservationResult:
        """See `Preservation`; `logit_scale` has no effect. A queue moves on with every call.

        Raises:
            PromptotError: a feature is NaN or infinite.
        """
        batch = len(labels)
        ours = student.at_least_float32().joint_rows(labels)  # [B, 2D]
        theirs = teacher.at_least_float32().joint_rows(labels).detach()
        if self.queue is not None:
            ours, theirs = self.queue.behind(ours, theirs)  # [N, 2D]
        choose = ROWS[self.rows]
        pairs = zip(choose(ours), choose(theirs), strict=True)
        parts = [compare(self.comparison, *pair) for pair in pairs]
        value = torch.stack([part.value for part in parts]).sum()
        if self.queue is not None:
            self.queue.push(ours, theirs)
            constant = value.detach()
            value = constant + len(ours) / batch * (value - constant)
        return pooled(value, parts)

    def state_dict(self) -> dict[str, Tensor]:
        """The rows in the queue, if there is one."""
        return {} if self.queue is None else self.queue.state_dict()

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the rows of `state_dict`.

        Raises:
            PromptotError: there are rows, but no queue.
        """
        if self.queue is not None:
            self.queue.load_state_dict(state)
        elif state:
            raise PromptotError(
                "The stored state of the objective has a feature queue, which this one has not.",
                fix="Resume with the recipe that the run was started with.",
            )

    def __repr__(self) -> str:
        queue = "" if self.queue is None else f", queue={self.queue.size}"
        return f"PreserveRows({self.comparison}, rows='{self.rows}'{queue})"


class JointTransport(PreserveRows):
    """The published Prompt-OT term: least cost of moving the student's batch onto the teacher's.

    Student rows a_i = [ṽ(x_i) ; t̃(y_i)], teacher rows b_j = [v(x_j) ; t(y_j)] on the same images,
    uniform marginals 1/B, cost C_ij = η ‖a_i − b_j‖², value Σ_ij π_ij C_ij. See `Transport` for
    the gradient.

    Args:
        eta: η, factor on the squared distance.
        solver: from a problem to a plan; published is the exact one.

    Example:
        >>> eye = torch.eye(3)
        >>> teacher = Features(image=eye, text=eye)
        >>> student = Features(image=0.9 * eye, text=eye)
        >>> result = JointTransport()(student, teacher, labels=torch.arange(3))
        >>> result.value, result.off_diagonal_mass  # ½ · 0.1² each
        (tensor(0.0050), tensor(0.))
    """

    def __init__(
        self,
        eta: float = 0.5,
        solver: Callable[[TransportProblem], TransportPlan] = solve_exact,
    ) -> None:
        super().__init__(Transport(eta, solver), rows="joint")


class PointwiseJoint(PreserveRows):
    """`JointTransport` with the plan fixed to the identity: η · mean_i ‖a_i − b_i‖².

    Args:
        eta: η, factor on the squared distance.
    """

    def __init__(self, eta: float = 0.5) -> None:
        super().__init__(Pointwise(eta), rows="joint")
