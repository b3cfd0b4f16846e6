"""Adapt CLIP to your own images with a few prompt tokens, and keep what it already knows.

Example:
    >>> import promptot
    >>> run = promptot.fit("photos", shots=8, strength=3.0)  # doctest: +SKIP
    >>> run.classifier.classify(["new.jpg"], class_names=["cat", "red panda"])  # doctest: +SKIP
    >>> run.save("runs/photos").report()  # doctest: +SKIP
    >>> classifier = promptot.load("runs/photos")  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from promptot.errors import PromptotError, PromptotWarning

if TYPE_CHECKING:
    from promptot.backbones.backbone import Backbone
    from promptot.backbones.by_name import load_backbone
    from promptot.backbones.catalogue import BackboneEntry, list_backbones
    from promptot.data import Example, ImageTask, Skipped, load_task
    from promptot.evaluation.retention import Retention
    from promptot.evaluation.scoring import Scores
    from promptot.experiments.benchmarking import Benchmark, benchmark
    from promptot.experiments.tuning.tune_task import tune
    from promptot.experiments.tuning.tuning_result import Tuning
    from promptot.exporting.export import Export
    from promptot.inspection.survey_result import Survey
    from promptot.inspection.survey_task import survey
    from promptot.recipes.recipe_files import list_recipes, load_recipe
    from promptot.recipes.schema import Recipe
    from promptot.runs.classifier import Classifier, Prediction, load, predict
    from promptot.runs.estimator import PromptClassifier
    from promptot.runs.evaluating import Evaluation, evaluate
    from promptot.runs.export_run import export
    from promptot.runs.fitting import fit
    from promptot.runs.hub import pull, push
    from promptot.runs.merging import Merged, merge
    from promptot.runs.run import Run, report
    from promptot.serving.server import serve
    from promptot.training.listener import Listener

__version__ = "0.3.0.dev0"

_LAZY = {
    "Backbone": "backbones.backbone",
    "BackboneEntry": "backbones.catalogue",
    "Benchmark": "experiments.benchmarking",
    "Classifier": "runs.classifier",
    "Evaluation": "runs.evaluating",
    "Example": "data.task",
    "Export": "exporting.export",
    "ImageTask": "data.task",
    "Listener": "training.listener",
    "Merged": "runs.merging",
    "Prediction": "runs.classifier",
    "PromptClassifier": "runs.estimator",
    "Recipe": "recipes.schema",
    "Retention": "evaluation.retention",
    "Run": "runs.run",
    "Scores": "evaluation.scoring",
    "Skipped": "data.task",
    "Survey": "inspection.survey_result",
    "Tuning": "experiments.tuning.tuning_result",
    "benchmark": "experiments.benchmarking",
    "evaluate": "runs.evaluating",
    "export": "runs.export_run",
    "fit": "runs.fitting",
    "list_backbones": "backbones.catalogue",
    "list_recipes": "recipes.recipe_files",
    "load": "runs.classifier",
    "load_backbone": "backbones.by_name",
    "load_recipe": "recipes.recipe_files",
    "load_task": "data",
    "merge": "runs.merging",
    "predict": "runs.classifier",
    "pull": "runs.hub",
    "push": "runs.hub",
    "report": "runs.run",
    "serve": "serving.server",
    "survey": "inspection.survey_task",
    "tune": "experiments.tuning.tune_task",
}
"""Public name → the module that it is in."""

__all__ = [
    "Backbone",
    "BackboneEntry",
    "Benchmark",
    "Classifier",
    "Evaluation",
    "Example",
    "Export",
    "ImageTask",
    "Listener",
    "Merged",
    "Prediction",
    "PromptClassifier",
    "PromptotError",
    "PromptotWarning",
    "Recipe",
    "Retention",
    "Run",
    "Scores",
    "Skipped",
    "Survey",
    "Tuning",
    "__version__",
    "benchmark",
    "evaluate",
    "export",
    "fit",
    "list_backbones",
    "list_recipes",
    "load",
    "load_backbone",
    "load_recipe",
    "load_task",
    "merge",
    "predict",
    "pull",
    "push",
    "report",
    "serve",
    "survey",
    "tune",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for only then: `import promptot` itself loads nothing heavy."""
    if name in _LAZY:
        return getattr(import_module(f"promptot.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'promptot' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
