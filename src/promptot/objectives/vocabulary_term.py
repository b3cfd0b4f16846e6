"""Hold on to the text features of all classes and of words that are no class yet."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from promptot.objectives.compare import compare
from promptot.objectives.comparisons import Comparison
from promptot.objectives.features import Features
from promptot.objectives.preservation import PreservationResult, pooled


@dataclass(frozen=True)
class VocabularyTerm:
    """Compare the student's text features of C classes and A anchor words with the teacher's.

    Every word weighs 1/(C + A), whether the batch has an image of it or not. Without anchor words
    the classes are compared alone. Where the student's text depends on the image, each image's
    words are compared on their own and the mean over the images is taken.

    Args:
        comparison: of two sets of rows.

    Example:
        >>> from promptot.objectives.comparisons import Pointwise
        >>> image, word = torch.eye(2)[:1], torch.eye(2)
        >>> teacher = Features(image, text=word[:1], vocabulary=word[1:])
        >>> student = Features(image, text=word[:1], vocabulary=0.9 * word[1:])
        >>> VocabularyTerm(Pointwise())(student, teacher).value  # ½ · 0.1² in one word of two
        tensor(0.0025)
    """

    comparison: Comparison

    def __call__(self, student: Features, teacher: Features) -> PreservationResult:
        """Distance of the student's words [C + A, D] or [B, C + A, D] from the teacher's.

        Raises:
            PromptotError: a feature is NaN or infinite.
        """
        ours, theirs = student.words(), teacher.words()
        per_image: tuple[Tensor, ...] = (ours,) if ours.dim() == 2 else ours.unbind()
        parts = [compare(self.comparison, words, theirs) for words in per_image]
        return pooled(torch.stack([part.value for part in parts]).mean(), parts)
