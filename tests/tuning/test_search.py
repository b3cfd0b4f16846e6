"""The order of the trials: useful early, finite, and a function of what is done."""

from __future__ import annotations

import pytest

from promptot.errors import PromptotError
from promptot.experiments.tuning import Point, next_settings
from promptot.experiments.tuning.search import DEPTHS, RATE, STRENGTH, change
from promptot.recipes import list_recipes, load_recipe


def search(recipe, right=lambda settings: "1010", kept=lambda settings: 0.5, most=60):
    done: list[Point] = []
    while len(done) < most:
        settings = next_settings(recipe, 12, done)
        if settings is None:
            return done
        done.append(Point(settings, right(settings), kept(settings), 4))
    raise AssertionError("the search does not end")


def test_the_recipe_itself_comes_first_then_other_strengths() -> None:
    done = search(load_recipe("prompt-ot"))
    assert [dict(p.settings) for p in done[:6]] == [
        {},
        *({STRENGTH: value} for value in (1.0, 100.0, 0.0, 3.0, 30.0)),
    ]
    assert len(done) <= 16


def test_every_recipe_that_learns_has_a_finite_search_without_repeats() -> None:
    for name in list_recipes():
        recipe = load_recipe(name)
        if not recipe.trains:
            continue
        done = search(recipe)
        settings = [tuple(sorted(point.settings.items())) for point in done]
        assert len(set(settings)) == len(settings)
        for point in done:
            changed = change(recipe, dict(point.settings))  # every one is a valid recipe
            assert changed.optim.lr == point.settings.get(RATE, recipe.optim.lr)
        strengths = {dict(point.settings).get(STRENGTH) for point in done}
        assert (len(strengths) > 1) == (recipe.objective.preservation != "none")


def test_later_stages_start_from_the_best_point() -> None:
    done = search(
        load_recipe("prompt-ot"), kept=lambda settings: 0.9 if settings.get(STRENGTH) == 3 else 0.1
    )
    later = [dict(p.settings) for p in done[6:]]
    assert later[0] == {STRENGTH: 3.0, DEPTHS[0]: 6, DEPTHS[1]: 6}
    assert all(settings[STRENGTH] in (1.5, 3.0, 6.0) for settings in later)


def test_a_better_rate_is_followed_and_not_for_ever() -> None:
    recipe = load_recipe("ivlp")
    done = search(recipe, kept=lambda settings: settings.get(RATE, recipe.optim.lr))
    rates = [point.settings[RATE] / recipe.optim.lr for point in done if RATE in point.settings]
    assert 4 in [round(rate, 3) for rate in rates]
    assert max(rates) <= 32


def test_what_does_not_learn_is_not_tuned() -> None:
    for name in ("zero-shot", "linear-probe"):
        with pytest.raises(PromptotError, match="nothing to tune"):
            change(load_recipe(name), {})
