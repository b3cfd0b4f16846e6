"""Methods as a benchmark compares them: recipes, each perhaps with values of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

from promptot.data.anchor_words import load_vocabulary
from promptot.data.task import ImageTask
from promptot.errors import PromptotError
from promptot.experiments.published_settings import Settings
from promptot.recipes import Recipe, complete_values, is_recipe, list_recipes, load_recipe

Rule = Callable[[str, str, int | None], Settings]
"""From the names of a recipe and a task and the number of shots (None for what learns from none) to
the settings of a cell."""


@dataclass(frozen=True)
class Method:
    """A recipe under the name that tables show it by.

    Attributes:
        label: the name.
        written: the recipe's name and its overrides.
        recipe: what it does.
        own_template: whether its frozen text reads the sentence that a task has, where it has one,
            and not the recipe's.
        source: the name or the file that the recipe was loaded from.
        overrides: the user's, in the order in which they apply.
        rule: gives the published settings of a cell, which `overrides` go before; None: there are
            none, and the recipe is the same everywhere, or `at` has found them.
        settings: those of this cell.
    """

    label: str
    written: str
    recipe: Recipe
    own_template: bool = False
    source: str = ""
    overrides: tuple[str, ...] = ()
    rule: Rule | None = field(default=None, compare=False, repr=False)
    settings: Settings | None = None

    def values(self) -> dict[str, Any]:
        """All that decides what the method does: the recipe without its name and its reasons."""
        values = complete_values(self.recipe)
        for key in ("name", "summary", "paper"):
            del values[key]
        # Younger than the others: cells that were run before they existed keep their keys.
        if self.recipe.data.teacher == "online":
            del values["data"]["teacher"]
        if self.recipe.optim.on_nonfinite == "stop":
            del values["optim"]["on_nonfinite"]
        if not values["prompts"]["cloned_projections"]:
            del values["prompts"]["cloned_projections"]
        if self.recipe.data.template_mean == "normalised":
            del values["data"]["template_mean"]
        return values | ({"own_template": True} if self.own_template else {})

    def template(self, task: ImageTask) -> str:
        """The sentence that the frozen model reads of the classes of a task."""
        return task.template if self.own_template else self.recipe.data.template

    def words(self) -> tuple[str, ...]:
        """The anchor words it may draw from, before those of the test are left out."""
        vocabulary = self.recipe.vocabulary
        return () if vocabulary.comparison == "none" else load_vocabulary(vocabulary.words)

    @property
    def learns(self) -> bool:
        """Whether anything is fitted to images, so that shots and seed matter."""
        return self.recipe.trains or self.recipe.probes

    def at(self, task: str, shots: int) -> Method:
        """The method as it runs on a task with so many images per class.

        Raises:
            PromptotError: the published settings and the overrides do not go together.
        """
        if self.rule is None:
            return self.with_shots(shots)
        settings = self.rule(self.source, task, shots if self.learns else None)
        overrides = [*settings.overrides, *self.overrides]
        own = self.own_template and not any(_key(text) == "data.template" for text in overrides)
        recipe = load_once(self.source, overrides)
        found = replace(self, recipe=recipe, own_template=own, rule=None, settings=settings)
        return found.with_shots(shots)

    def with_shots(self, shots: int) -> Method:
        """The same method with another number of images per class."""
        data = self.recipe.data.model_copy(update={"shots": shots})
        return replace(self, recipe=self.recipe.model_copy(update={"data": data}))


def parse_methods(
    text: str,
    overrides: Sequence[str] = (),
    own_template: Sequence[str] = (),
    rule: Rule | None = None,
) -> list[Method]:
    """Read "zero-shot,ivlp,prompt-ot[objective.strength=3,optim.lr=0.01]".

    Args:
        text: recipes (names or YAML files) between commas, each with overrides of its own in
            square brackets, or none. "name=" before a recipe is what tables call it by.
        overrides: values for all methods; those in brackets go before them.
        own_template: recipes whose frozen text reads a task's own sentence.
        rule: gives the published settings of each cell, which any override goes before.

    Raises:
        PromptotError: a bracket is open, a method is empty or given twice, shots are given in
            brackets, or a recipe or value is not possible.

    Example:
        >>> zero, ot = parse_methods("zero-shot, prompt-ot[objective.strength=3]")
        >>> ot.label, ot.recipe.objective.strength
        ('prompt-ot[objective.strength=3]', 3.0)
        >>> [m.label for m in parse_methods("weak=prompt-ot[objective.strength=1],prompt-ot")]
        ['weak', 'prompt-ot']
    """
    methods: list[Method] = []
    for written in split_outside_brackets(text):
        before, bracket, rest = written.partition("[")
        named, name = _split_name(before)
        if not name or named == "" or (bracket and not rest.endswith("]")):
            raise PromptotError(
                f"The methods '{text}' can't be read at '{written}'.",
                fix="Put one comma between two, as in --methods "
                "'ivlp,prompt-ot[objective.strength=3]', or 'ivlp,weak=prompt-ot[…]'.",
            )
        own = split_outside_brackets(rest[:-1]) if bracket else []
        if any(_key(override) == "data.shots" for override in own):
            raise PromptotError(
                f"'{written}' sets its own shots.", fix="Use --shots, the same for all methods."
            )
        given = (*overrides, *own)
        recipe = load_recipe(name, given)
        call = f"{recipe.name}{bracket}{rest}"
        label = named or call
        if label in {method.label for method in methods}:
            raise PromptotError(f"The method '{label}' is given twice.", fix="Name it once.")
        methods.append(Method(label, call, recipe, name in own_template, name, given, rule))
    return methods


def _key(override: str) -> str:
    """What an override sets."""
    return override.partition("=")[0].strip()


def load_once(source: str, overrides: Sequence[str] = ()) -> Recipe:
    """`load_recipe`, which remembers shipped recipes: a suite asks for them cell by cell."""
    return (
        _shipped(source, tuple(overrides))
        if source in list_recipes()
        else load_recipe(source, overrides)
    )


@cache
def _shipped(name: str, overrides: tuple[str, ...]) -> Recipe:
    return load_recipe(name, overrides)


def _split_name(text: str) -> tuple[str | None, str]:
    """What a method is called by (None: as it is written), and its recipe.

    Names and paths may contain equals signs: what follows the first that leads to a recipe counts.
    """
    parts = text.split("=")
    for place in range(len(parts)):
        recipe = "=".join(parts[place:]).strip()
        if is_recipe(recipe):
            break
    else:
        place, recipe = len(parts) - 1, parts[-1].strip()
    return ("=".join(parts[:place]).strip() if place else None), recipe


def split_outside_brackets(text: str) -> list[str]:
    """Split at the commas that stand in no square bracket; parts without outer blanks.

    Raises:
        PromptotError: brackets do not close, or something stands behind a closing one.

    Example:
        >>> split_outside_brackets("a, b[x=1,y=[2,3]],c")
        ['a', 'b[x=1,y=[2,3]]', 'c']
    """
    parts, depth = [""], 0
    for character in text:
        depth += (character == "[") - (character == "]")
        if depth < 0:
            break
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    if depth != 0:
        raise PromptotError(
            f"The square brackets in '{text}' do not match.",
            fix="Write prompt-ot[objective.strength=3].",
        )
    return [part.strip() for part in parts]
