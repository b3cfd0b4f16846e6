"""Dividing a task that comes without splits."""

from __future__ import annotations

import random

from promptot.data.task import SPLITS, Example, ImageTask, by_label
from promptot.errors import PromptotError


def split_examples(
    task: ImageTask, seed: int, fractions: tuple[float, float, float] = (0.5, 0.2, 0.3)
) -> ImageTask:
    """Divide the training images of a task that has no other split, class by class.

    The same task, seed and fractions always give the same division, so images that were held back
    from training can be found again for testing. A task with its own validation or test split is
    returned unchanged. Every class keeps at least one training image, then (from two images on,
    unless its fraction is 0) one test image; validation takes what rounding leaves.

    Args:
        task: as `load_folder` gives it for plain class folders.
        seed: decides which image goes where.
        fractions: of training, validation and test; the default is the usual one for data sets
            without a published split.

    Raises:
        PromptotError: the fractions are negative or don't add up to 1, or training gets none.
    """
    if min(fractions) < 0 or fractions[0] == 0 or abs(sum(fractions) - 1) > 1e-6:
        raise PromptotError(
            f"The split {fractions} is not possible.",
            fix="Give three shares (training, validation, test) that add up to 1.",
        )
    if task.validation or task.test:
        return task
    generator = random.Random(seed)
    splits: dict[str, list[Example]] = {split: [] for split in SPLITS}
    for _, group in sorted(by_label(task.train).items()):
        shuffled = generator.sample(group, len(group))
        trained, tested = _counts(len(group), fractions)
        splits["train"] += shuffled[:trained]
        splits["test"] += shuffled[trained : trained + tested]
        splits["validation"] += shuffled[trained + tested :]
    return task.with_splits(splits)


def _counts(total: int, fractions: tuple[float, float, float]) -> tuple[int, int]:
    """How many of a class's images train and test; the rest validates."""
    train = max(1, round(total * fractions[0]))
    test = round(total * fractions[2])
    if fractions[2] > 0 and total > 1:
        train = min(train, total - 1)
        test = max(1, test)
    test = min(test, total - train)
    if fractions[1] == 0:  # what rounding leaves must not go to a split that is switched off
        train = total - test
    return train, test


def hold_out(task: ImageTask, test_share: float) -> ImageTask:
    """The task with a share of each class for testing, where it has no such split; see `fit`."""
    if test_share <= 0:
        return task
    return split_examples(task, seed=0, fractions=(1 - test_share, 0.0, test_share))
