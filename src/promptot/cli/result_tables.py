"""The tables that the commands print; each fits a terminal of 80 columns."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.table import Column, Table

from promptot.cli.console import plain
from promptot.cli.grid import folded, grid, listing, numbers
from promptot.errors import listed
from promptot.reports.tables import format_difference, format_interval, format_value

if TYPE_CHECKING:
    from promptot.backbones.by_name import Source
    from promptot.evaluation.scoring import Scores
    from promptot.experiments.tuning import Tuning
    from promptot.recipes.schema import Recipe
    from promptot.runs.card import Card
    from promptot.runs.classifier import Prediction


def score_table(scores: Mapping[str, Scores]) -> Table:
    """Zero-shot and adapted accuracy side by side, each with its interval below."""
    table = grid(
        "tested on",
        *numbers("images", "classes", "zero-shot", "adapted", "change"),
        caption="Accuracy, with its 95 % interval (Wilson) over these images.",
    )
    for name, result in scores.items():
        change = result.student_accuracy - result.teacher_accuracy
        colour = "green" if change > 0 else "red" if change < 0 else "dim"
        table.add_row(
            plain(name),
            str(len(result.labels)),
            str(result.student.shape[1]),
            _measure(result.teacher_accuracy, result.teacher_interval),
            _measure(result.student_accuracy, result.student_interval),
            f"[{colour}]{format_difference(change, 'share')}[/]",
        )
    return table


def tuning_table(found: Tuning) -> Table:
    """Each setting that was tried: its fit and its retention."""
    from promptot.experiments.tuning.search import describe_settings

    table = grid(
        *("point", "setting"),
        *numbers("fit", "retention", "time"),
        caption=f"Fit: accuracy on {found.validation} validation images. Retention: "
        f"{found.retention}. ★ recommended, • not beaten by another point.",
    )
    rows = [("", "zero-shot", found.zero_shot)]
    front = set(found.front)
    for place, point in enumerate(found.points):
        mark = "★" if place == found.recommended else "•" if place in front else " "
        text = describe_settings(point.settings, found.recipe)
        rows.append((f"{place + 1} {mark}", text, point))
    for number, text, point in rows:
        style = "bold" if number.endswith("★") else ""
        table.add_row(
            number,
            plain(text),
            f"{format_value(point.fit, 'share')}\n"
            f"[not bold dim]{format_interval(point.interval, 'share')}[/]",
            format_value(point.retention, "share"),
            format_value(point.seconds, "seconds") if point.seconds else "",
            style=style,
        )
    return table


def _measure(value: float, interval: tuple[float, float]) -> str:
    return f"[bold]{format_value(value, 'share')}[/]\n[dim]{format_interval(interval, 'share')}[/]"


def prediction_table(predictions: Iterable[Prediction]) -> Table:
    """The likeliest names of each image, with bars; a reason where it could not be read.

    Where it is none of the names, a line in front says so.
    """
    probability = Column("probability", no_wrap=True, min_width=24)
    table = grid(folded("image", ratio=2), Column("class", ratio=2), probability)
    for p in predictions:
        if p.problem:
            table.add_row(plain(p.image), f"[red]not read: {plain(p.problem)}[/]", "")
        if p.none_of_these:
            table.add_row(plain(p.image), "[bold]none of these[/]", "")
        for rank, (name, value) in enumerate(zip(p.class_names, p.probabilities, strict=True)):
            style = "bold" if rank == 0 and not p.none_of_these else "dim"
            table.add_row(
                plain(p.image) if rank == 0 and not p.none_of_these else "",
                f"[{style}]{plain(name)}[/]",
                f"[{style}]{100 * value:5.1f} %[/] [cyan]{'█' * round(16 * value)}[/]",
            )
        table.add_section()
    return table


def pairs(values: Mapping[str, object], title: str = "") -> Table:
    """Names and values in two columns."""
    table = listing(Column(style="bold", no_wrap=True), folded(), title=title)
    for key, value in values.items():
        table.add_row(plain(key), plain("none" if value is None else value))
    return table


def source_list(sources: Iterable[Source]) -> Table:
    """How each kind of backbone is written, and what it is."""
    table = listing()
    for source in sources:
        names = [f"[bold]{plain(name)}[/]" for name in _forms(source.pattern)]
        table.add_row("\n".join(names) + f"\n  {plain(source.summary)}")
    return table


def _forms(pattern: str) -> list[str]:
    """The ways to write a kind of name: each begins with the kind and a colon."""
    return re.split(r" or (?=\w+:)", pattern)


def recipe_list(recipes: Iterable[Recipe]) -> Table:
    """Each recipe's name, what it does, and where it was published."""
    table = listing(Column(style="bold", no_wrap=True), Column())
    for recipe in recipes:
        paper = f"\n[dim]{plain(recipe.paper)}[/]" if recipe.paper else ""
        table.add_row(plain(recipe.name), plain(recipe.summary) + paper)
    return table


def card_tables(card: Card, parameters: int) -> Group:
    """What an adapter's card says: the adapter, its test, its recipe, its versions."""
    recipe = {key: value for key, value in card.recipe.items() if "." in key}
    names = listed(card.class_names, 12, quoted=False, counted=False)
    adapter = {
        "backbone": f"{card.backbone.name} (weights {card.backbone.weight_hash[:12]})",
        **_function(card),
        "recipe": card.recipe_name or "unknown",
        "learnt": f"{parameters:,} parameters",
        "classes": f"{len(card.class_names)}: {names}",
        "template": card.template,
    }
    shown: list[Any] = [pairs(adapter)]
    if card.metrics:
        test = {
            key.replace("_", " "): format_value(value, "share")
            for key, value in card.metrics.items()
        }
        shown += ["", pairs(test, title="Test")]
    if recipe:
        shown += ["", pairs(recipe, title="Recipe")]
    if card.versions:
        shown += ["", pairs(card.versions, title="Versions")]
    return Group(*shown)


def _function(card: Card) -> dict[str, Any]:
    """What its backbone does with the weights: the part that is worth a line."""
    noted = card.backbone.function
    if noted is None:
        return {"activation": "not noted: an older promptot wrote the card"}
    shown = ("activation", "pool", "context_length", "resolution", "interpolation")
    names = [name for name in noted if name.rpartition(".")[2] in shown]
    return {name.replace(".", " ").replace("_", " "): noted[name] for name in names}
