"""The last rows of both models, so that transport sees more than one batch."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from promptot.errors import PromptotError

LONGEST = 4096  # its cost matrix takes 64 MiB, and a plan as much again


class FeatureQueue:
    """Student and teacher rows of the last steps, newest first, as constants.

    Old student rows are what the prompts of their own step gave: none is computed anew.

    Args:
        size: Q, rows that a population holds at most, the current batch included.

    Raises:
        PromptotError: `size` is not from 1 to 4096.

    Example:
        >>> queue = FeatureQueue(size=3)
        >>> for step in range(3):
        ...     rows = torch.full((2, 1), float(step))
        ...     student, teacher = queue.behind(rows, rows)
        ...     queue.push(student, teacher)
        >>> student.flatten()
        tensor([2., 2., 1.])
    """

    def __init__(self, size: int) -> None:
        if not 1 <= size <= LONGEST:
            raise PromptotError(
                f"A feature queue of {size} rows.", fix=f"Give a number from 1 to {LONGEST}."
            )
        self.size = size
        self._rows: tuple[Tensor, Tensor] | None = None  # student and teacher, [≤ Q, W] each

    def behind(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """The batch's rows [B, W] followed by older ones, at most Q or B in all, [N, W] each."""
        if self._rows is None:
            return student, teacher
        if self._rows[0].shape[1] != student.shape[1]:
            raise PromptotError(
                f"The queue holds rows of {self._rows[0].shape[1]} numbers, these have "
                f"{student.shape[1]}.",
                fix="Resume with the recipe and the backbone that the run was started with.",
            )
        room = max(self.size - len(student), 0)
        old_student, old_teacher = (old[:room].to(student) for old in self._rows)
        return torch.cat([student, old_student]), torch.cat([teacher, old_teacher])

    def push(self, student: Tensor, teacher: Tensor) -> None:
        """Remember the first Q of these rows, which `behind` gave."""
        self._rows = (student.detach()[: self.size], teacher.detach()[: self.size])

    def state_dict(self) -> dict[str, Tensor]:
        """The rows; nothing while it is empty."""
        if self._rows is None:
            return {}
        student, teacher = self._rows
        return {"student": student, "teacher": teacher}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the rows of `state_dict`.

        Raises:
            ValueError: they are not two tables [≤ Q, W] of floating-point numbers.
        """
        if not state:
            self._rows = None
            return
        student, teacher = state["student"], state["teacher"]
        fits = student.dim() == 2 and student.shape == teacher.shape and len(student) <= self.size
        if len(state) > 2 or not (fits and student.is_floating_point()):
            raise ValueError("no queue of this size has such rows")
        self._rows = (student, teacher.to(student))
