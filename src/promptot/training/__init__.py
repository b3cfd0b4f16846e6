"""Training: the loop, the schedule, the log and checkpoints."""

from promptot.training.loop import train
from promptot.training.schedule import learning_rate

__all__ = ["learning_rate", "train"]
