"""The learning rate of each step."""

from __future__ import annotations

import math

from promptot.recipes.schema import OptimConfig


def learning_rate(epoch: int, config: OptimConfig, step: int = 1, steps: int = 1) -> float:
    """Learning rate of a step: constant while warming up, then a cosine.

    With w warm-up epochs and T epochs in all, epoch e ≤ w uses `warmup_lr`, and epoch e > w uses
    min_lr + ½ (lr − min_lr) (1 + cos(π t)) with t = (e − 1 − w) / T, so the cosine's first epoch
    has the full rate. By steps, t goes on within the epoch: t = (e − 1 − w + (i − 1) / n) / T in
    step i of n.

    Args:
        epoch: e, counted from 1.
        step: i, counted from 1.
        steps: n, of an epoch.

    Example:
        >>> [round(learning_rate(e, OptimConfig(lr=0.1, epochs=4)), 4) for e in (1, 2, 3, 4)]
        [0.0001, 0.1, 0.0854, 0.05]
        >>> by_steps = OptimConfig(lr=0.1, epochs=1, warmup_epochs=0, schedule="steps")
        >>> [round(learning_rate(1, by_steps, i, 4), 4) for i in (1, 2, 3, 4)]
        [0.1, 0.0854, 0.05, 0.0146]
    """
    if epoch <= config.warmup_epochs:
        return config.warmup_lr
    within = (step - 1) / steps if config.schedule == "steps" else 0.0
    done = (epoch - 1 - config.warmup_epochs + within) / config.epochs
    return config.min_lr + 0.5 * (config.lr - config.min_lr) * (1 + math.cos(math.pi * done))
