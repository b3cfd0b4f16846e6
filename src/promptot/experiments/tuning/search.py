"""Which settings to try, in an order that is of use whenever it stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from promptot.errors import PromptotError
from promptot.experiments.tuning.trial_points import Point, recommend
from promptot.recipes.schema import Recipe

Settings = dict[str, float | int]
Search = Callable[[Recipe, int, Sequence[Point]], Settings | None]
"""From a recipe, the blocks of the deeper tower and the points so far to what to try next."""

STRENGTH, RATE = "objective.strength", "optim.lr"
DEPTHS = ("prompts.text_depth", "prompts.vision_depth")
STRENGTHS = (1.0, 0.1, 10.0, 0.0, 0.3, 3.0)
"""Factors on the recipe's λ: its own, far below and above, none at all, and in between."""
SMALLER_DEPTHS = (2, 4)
RATES = (0.5, 2.0)
NEAR_STRENGTHS = (0.5, 2.0)


def next_settings(recipe: Recipe, layers: int, done: Sequence[Point]) -> Settings | None:
    """What to try next, a pure function of what is done; None when all has been tried.

    First λ over two orders of magnitude each way, because it decides the trade-off; then, at the
    best point so far, fewer blocks with prompts; then other learning rates, further in the
    direction that was better; then λ close by.

    Args:
        recipe: to start from; the first settings are its own.
        layers: blocks of the deeper tower.
        done: in the order in which they were tried.
    """
    tried = [dict(point.settings) for point in done]
    for stage in (_strengths, _depths, _rates, _near_strengths):
        at = dict(done[recommend(done)].settings) if done else {}
        for settings in stage(recipe, layers, at, done):
            if settings not in tried:
                return settings
    return None


def change(recipe: Recipe, settings: Settings) -> Recipe:
    """The recipe with these values.

    Raises:
        PromptotError: the recipe has nothing to tune.
    """
    check_tunable(recipe)
    values = recipe.model_dump(mode="python")
    for key, value in settings.items():
        section, _, field = key.rpartition(".")
        values[section][field] = value
    return Recipe.model_validate(values)


def check_tunable(recipe: Recipe) -> None:
    """Refuse a recipe without prompts that learn.

    Raises:
        PromptotError: there is nothing to tune.
    """
    if not recipe.trains:
        raise PromptotError(
            f"The recipe '{recipe.name}' trains no prompts, so there is nothing to tune.",
            fix="Use it as it is, or tune another one, such as prompt-ot.",
        )


def describe_settings(settings: Mapping[str, float | int], recipe: Recipe) -> str:
    """Settings in words.

    Example:
        >>> from promptot.recipes import load_recipe
        >>> describe_settings({"objective.strength": 3.0}, load_recipe("prompt-ot"))
        'λ = 3'
        >>> describe_settings({}, load_recipe("prompt-ot"))
        'λ = 10 (as published)'
        >>> depths = {"prompts.text_depth": 2, "prompts.vision_depth": 2}
        >>> describe_settings(depths, load_recipe("ivlp"))
        'depth = 2'
    """
    names = {
        "depth": "depth",
        "objective.strength": "λ",
        "prompts.text_depth": "text depth",
        "prompts.vision_depth": "image depth",
        "optim.lr": "learning rate",
    }
    shown = dict(settings)
    if recipe.objective.preservation != "none" and "objective.strength" not in shown:
        shown = {"objective.strength": recipe.objective.strength, **shown}
    depths = {shown.get(key) for key in DEPTHS}
    if len(depths) == 1 and None not in depths:
        shown = {"depth": shown[DEPTHS[0]], **{k: v for k, v in shown.items() if k not in DEPTHS}}
        shown = {key: shown[key] for key in sorted(shown, key=_place)}
    text = ", ".join(f"{names.get(key, key)} = {value:g}" for key, value in shown.items())
    if settings:
        return text
    return f"{text} (as published)" if text else "as published"


def _strengths(recipe: Recipe, layers: int, at: Settings, done: Sequence[Point]) -> list[Settings]:
    own = recipe.objective.strength
    if recipe.objective.preservation == "none" or own == 0:
        return [{}]
    return [{} if factor == 1 else {STRENGTH: _round(own * factor)} for factor in STRENGTHS]


def _depths(recipe: Recipe, layers: int, at: Settings, done: Sequence[Point]) -> list[Settings]:
    found = []
    for divisor in SMALLER_DEPTHS:
        smaller: Settings = {}
        for key in DEPTHS:
            field = key.rpartition(".")[2]
            if field in recipe.prompts.used_fields():
                own = min(getattr(recipe.prompts, field), layers)
                if own > 1:
                    smaller[key] = max(1, own // divisor)
        if smaller:
            found.append(_merged(at, smaller))
    return found


def _rates(recipe: Recipe, layers: int, at: Settings, done: Sequence[Point]) -> list[Settings]:
    own = recipe.optim.lr
    found = [_merged(at, {RATE: _round(own * factor)}) for factor in RATES]
    factor = float(at.get(RATE, own)) / own
    if factor >= 2:
        found.append(_merged(at, {RATE: _round(own * factor * 2)}))
    elif factor < 1:
        found.append(_merged(at, {RATE: _round(own * factor / 2)}))
    return found if abs(factor) < 16 and factor > 1 / 16 else []


def _near_strengths(
    recipe: Recipe, layers: int, at: Settings, done: Sequence[Point]
) -> list[Settings]:
    own = float(at.get(STRENGTH, recipe.objective.strength))
    if recipe.objective.preservation == "none" or own == 0:
        return []
    if len(done) >= len(STRENGTHS) + len(SMALLER_DEPTHS) + len(RATES) + 2 * len(NEAR_STRENGTHS):
        return []  # it could go on for ever, λ by λ
    return [_merged(at, {STRENGTH: _round(own * factor)}) for factor in NEAR_STRENGTHS]


def _merged(at: Settings, more: Settings) -> Settings:
    return {**at, **more}


def _round(value: float) -> float:
    return float(f"{value:.4g}")


def _place(key: str) -> int:
    return ["objective.strength", "depth", *DEPTHS, "optim.lr"].index(key)
