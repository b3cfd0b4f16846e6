"""Adapt CLIP to your own images with a few prompt tokens, and keep what it already knows.

Example:
    >>> import promptot
    >>> run = promptot.fit("photos", "runs/photos", shots=8)  # doctest: +SKIP
    >>> classifier = promptot.load("runs/photos")  # doctest: +SKIP
    >>> classifier.predict(["new.jpg"], class_names=["cat", "red panda"])  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from promptot.errors import PromptotError, PromptotWarning

if TYPE_CHECKING:
    from promptot.backbones.by_name import load_backbone
    from promptot.data import load_task
    from promptot.experiments.tuning.tune_task import tune
    from promptot.exporting.export import export
    from promptot.recipes.recipe_files import load_recipe
    from promptot.runs.classifier import load
    from promptot.runs.commands import evaluate, fit, report
    from promptot.runs.estimator import PromptClassifier
    from promptot.runs.hub import pull, push
    from promptot.runs.merging import merge

__version__ = "0.1.0"
__all__ = [
    "PromptClassifier",
    "PromptotError",
    "PromptotWarning",
    "__version__",
    "evaluate",
    "export",
    "fit",
    "load",
    "load_backbone",
    "load_recipe",
    "load_task",
    "merge",
    "pull",
    "push",
    "report",
    "tune",
]

_LAZY = {
    "PromptClassifier": "promptot.runs.estimator",
    "evaluate": "promptot.runs.commands",
    "export": "promptot.exporting.export",
    "fit": "promptot.runs.commands",
    "load": "promptot.runs.classifier",
    "load_backbone": "promptot.backbones.by_name",
    "load_recipe": "promptot.recipes.recipe_files",
    "load_task": "promptot.data",
    "report": "promptot.runs.commands",
    "tune": "promptot.experiments.tuning.tune_task",
    "merge": "promptot.runs.merging",
    "pull": "promptot.runs.hub",
    "push": "promptot.runs.hub",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import promptot` itself loads nothing heavy."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'promptot' has no attribute '{name}'")
