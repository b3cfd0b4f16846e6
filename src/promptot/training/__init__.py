"""Training: the loop, the schedule, the log and checkpoints."""

from promptot.training.schedule import learning_rate
from promptot.training.trainer import train

__all__ = ["learning_rate", "train"]
