"""`promptot recipes`."""

from __future__ import annotations

from typing import Annotated

import typer

from promptot.cli import common_options as common
from promptot.cli.console import Screen


class RecipesOptions(common.Options):
    """What `promptot recipes` takes."""

    name: Annotated[
        str | None, typer.Argument(help="Show all values of one recipe.", metavar="[NAME]")
    ] = None


def recipes(options: RecipesOptions, screen: Screen) -> None:
    """List the recipes, or show one with the keys that --set takes."""
    from promptot.cli.result_tables import pairs, recipe_list
    from promptot.recipes import describe, list_recipes, load_recipe

    if options.name is None:
        shipped = [load_recipe(name) for name in list_recipes()]
        screen.print(recipe_list(shipped))
        screen.result([recipe.model_dump(mode="json") for recipe in shipped])
        return
    recipe = load_recipe(options.name)
    screen.print(recipe_list([recipe]))
    values = {key: value for key, value in describe(recipe).items() if "." in key}
    screen.print("", pairs(values))
    screen.print("\n[dim]`promptot fit --set KEY=VALUE` replaces any of these.[/]")
    screen.result(recipe.model_dump(mode="json"))
