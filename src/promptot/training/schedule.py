"""The learning rate of each epoch."""

from __future__ import annotations

import math

from promptot.recipes.schema import OptimConfig


def learning_rate(epoch: int, config: OptimConfig) -> float:
    """Learning rate of an epoch: constant while warming up, then a cosine.

    With w warm-up epochs and T epochs in all, epoch e ≤ w uses `warmup_lr`, and epoch e > w uses
    ½ · lr · (1 + cos(π (e − 1 − w) / T)), so the cosine's first epoch has the full rate.

    Args:
        epoch: counted from 1.

    Example:
        >>> [round(learning_rate(e, OptimConfig(lr=0.1, epochs=4)), 4) for e in (1, 2, 3, 4)]
        [0.0001, 0.1, 0.0854, 0.05]
    """
    if epoch <= config.warmup_epochs:
        return config.warmup_lr
    done = (epoch - 1 - config.warmup_epochs) / config.epochs
    return 0.5 * config.lr * (1 + math.cos(math.pi * done))
