"""Training: the trainer, the schedule, the log and checkpoints."""

from promptot.training.listener import Listener
from promptot.training.schedule import learning_rate
from promptot.training.train_student import train

__all__ = ["Listener", "learning_rate", "train"]
