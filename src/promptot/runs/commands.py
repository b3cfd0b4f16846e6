"""Where the commands' functions were: see `fitting`, `evaluating` and `run`."""

from promptot.runs.evaluating import Evaluation, evaluate
from promptot.runs.fitting import fit
from promptot.runs.run import report

__all__ = ["Evaluation", "evaluate", "fit", "report"]
