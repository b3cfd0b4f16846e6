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
    from promptot.api import evaluate, fit, report
    from promptot.backbones.load import load_backbone
    from promptot.classifier import load
    from promptot.estimator import PromptClassifier
    from promptot.exporting.export import export
    from promptot.hub import pull, push
    from promptot.merging import merge
    from promptot.recipes.loading import load_recipe
    from promptot.tasks import load_task
    from promptot.tuning.trials import tune

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
    "PromptClassifier": "promptot.estimator",
    "evaluate": "promptot.api",
    "export": "promptot.exporting.export",
    "fit": "promptot.api",
    "load": "promptot.classifier",
    "load_backbone": "promptot.backbones.load",
    "load_recipe": "promptot.recipes.loading",
    "load_task": "promptot.tasks",
    "report": "promptot.api",
    "tune": "promptot.tuning.trials",
    "merge": "promptot.merging",
    "pull": "promptot.hub",
    "push": "promptot.hub",
}


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import promptot` itself loads nothing heavy."""
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'promptot' has no attribute '{name}'")
