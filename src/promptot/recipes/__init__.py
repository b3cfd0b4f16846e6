"""Methods as data: prompts × objective × schedule, one small YAML file each."""

from __future__ import annotations

from promptot.recipes.loading import describe, list_recipes, load_recipe, recipe_keys
from promptot.recipes.schema import (
    DataConfig,
    ObjectiveConfig,
    OptimConfig,
    PromptsConfig,
    Recipe,
)

__all__ = [
    "DataConfig",
    "ObjectiveConfig",
    "OptimConfig",
    "PromptsConfig",
    "Recipe",
    "describe",
    "list_recipes",
    "load_recipe",
    "recipe_keys",
]
