"""How long a step takes, before any is taken."""

from __future__ import annotations

import itertools
import time

import torch

from promptot.errors import PromptotError
from promptot.training.device_step import WARM_UP
from promptot.training.trainer import Trainer

TIMED = 3


def seconds_a_step(trainer: Trainer) -> float:
    """Seconds a step, loading included, of some that leave no trace; 0 without batches.

    Those before, which warm up and record a graph, are left out.
    """
    cuda = trainer.device.type == "cuda"
    count = TIMED + (WARM_UP if cuda else 0)
    marks = []
    with trainer.rehearsing() as attempt:
        for batch in itertools.islice(trainer.loader.batches(trainer.position.epoch + 1), count):
            try:
                attempt(batch)
            except PromptotError:  # training will say it, with the step and the images
                break
            if cuda:
                torch.cuda.synchronize(trainer.device)
            marks.append(time.perf_counter())
    marks = marks[-TIMED:]
    return (marks[-1] - marks[0]) / (len(marks) - 1) if len(marks) > 1 else 0.0
