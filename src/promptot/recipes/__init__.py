"""Methods as data: prompts × objective × ensembling × schedule, one small YAML file each."""

from __future__ import annotations

from promptot.recipes.recipe_files import (
    describe,
    is_recipe,
    list_recipes,
    load_recipe,
    recipe_keys,
)
from promptot.recipes.schema import (
    DataConfig,
    EnsemblingConfig,
    ObjectiveConfig,
    OptimConfig,
    PromptsConfig,
    Recipe,
    VocabularyConfig,
    complete_values,
)

__all__ = [
    "DataConfig",
    "EnsemblingConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PromptsConfig",
    "Recipe",
    "VocabularyConfig",
    "complete_values",
    "describe",
    "is_recipe",
    "list_recipes",
    "load_recipe",
    "recipe_keys",
]
