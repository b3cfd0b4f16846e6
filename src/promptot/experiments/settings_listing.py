"""Which settings the cells of a benchmark have, one by one and summed up in a few rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

from promptot.experiments.methods import Method, load_once
from promptot.recipes import Recipe, describe

PUBLISHED, CHANGED, NOT_PUBLISHED = "published", "changed", "not published"
"""What settings are: published; published ones with values of the user's; the recipe's own."""


@dataclass(frozen=True)
class CellSettings:
    """The settings of one cell.

    Attributes:
        method: its label.
        recipe: the name of its recipe, and the overrides that were given with it.
        task, shots, seed: of the cell.
        state: `PUBLISHED`, `CHANGED` or `NOT_PUBLISHED`.
        note: what must be known of them.
        epochs: of the schedule; None where nothing is trained.
        read_epoch: the epoch whose prompts are tested.
        published_epoch: the one that published figures are of, where that is not the last.
        differs: values that are not the recipe's own, by key.
        settings: all values that have an effect, by key; "data.template" is the sentence that the
            frozen model reads of the task's classes.
    """

    method: str
    recipe: str
    task: str
    shots: int
    seed: int
    state: str
    note: str
    epochs: int | None
    read_epoch: int | None
    published_epoch: int | None
    differs: Mapping[str, Any]
    settings: Mapping[str, Any]


@dataclass(frozen=True)
class SettingsRow:
    """Cells of one method that have the same settings; see `CellSettings`.

    Attributes:
        where: which data sets and numbers of shots.
    """

    method: str
    where: str
    state: str
    note: str
    epochs: int | None
    read_epoch: int | None
    published_epoch: int | None
    differs: Mapping[str, Any]


def describe_cell(method: Method, task: str, template: str, shots: int, seed: int) -> CellSettings:
    """The settings of a cell.

    Args:
        method: as `Method.at` gives it.
        task: its name.
        template: the sentence of the task.
        shots, seed: of the cell.
    """
    recipe, settings = method.recipe, method.settings
    values = {key: value for key, value in describe(recipe).items() if "." in key}
    own = _effective(load_once(method.source))
    differs = {key: v for key, v in _effective(recipe).items() if own.get(key) != v}
    if method.own_template and "data.template" in values:
        values["data.template"] = template
    return CellSettings(
        method=method.label,
        recipe=method.written,
        task=task,
        shots=shots,
        seed=seed,
        state=_state(method),
        note="" if settings is None else settings.note,
        epochs=recipe.optim.epochs if recipe.trains else None,
        read_epoch=(recipe.evaluate_epoch or recipe.optim.epochs) if recipe.trains else None,
        published_epoch=None if settings is None else settings.published_epoch,
        differs=differs,
        settings=values,
    )


_SAME = attrgetter("state", "note", "epochs", "read_epoch", "published_epoch", "differs")
"""What the cells of a row have in common, in the order of its fields."""


def sum_up(cells: Iterable[CellSettings]) -> list[SettingsRow]:
    """A row for the cells of a method that have the same settings, method by method."""
    cells = list(cells)
    rows = []
    for method in dict.fromkeys(cell.method for cell in cells):
        own = [cell for cell in cells if cell.method == method]
        groups: dict[str, list[CellSettings]] = {}
        for cell in own:
            groups.setdefault(str(_SAME(cell)), []).append(cell)
        for group in groups.values():
            where = _where(_places(group), _places(own))
            rows.append(SettingsRow(method, where, *_SAME(group[0])))
    return rows


def as_json(found: CellSettings | SettingsRow) -> dict[str, Any]:
    """As plain values."""
    return dataclasses.asdict(found)


def state_text(row: SettingsRow) -> str:
    """A few words on where the settings come from.

    Example:
        >>> row = SettingsRow("coop", "all", NOT_PUBLISHED, "published for 16", 5, 5, None, {})
        >>> state_text(row)
        'not published (published for 16)'
    """
    return f"{row.state} ({row.note})" if row.note else row.state


def epoch_text(row: SettingsRow) -> str:
    """The epoch that is read: alone where it is the last one, else with the length of the schedule;
    and the published one where that is another.

    Example:
        >>> epoch_text(SettingsRow("prompt-ot", "all", PUBLISHED, "", 40, 40, 31, {}))
        '40 (published: 31)'
        >>> epoch_text(SettingsRow("prompt-ot", "all", PUBLISHED, "", 40, 31, 31, {}))
        '31 of 40'
    """
    if row.epochs is None:
        return ""
    text = str(row.epochs)
    if row.read_epoch != row.epochs:
        text = f"{row.read_epoch} of {row.epochs}"
    other = row.published_epoch not in (None, row.read_epoch)
    return f"{text} (published: {row.published_epoch})" if other else text


def _state(method: Method) -> str:
    """Whether the settings are published, changed by the user, or the recipe's own."""
    settings = method.settings
    if settings is None or not settings.published:
        return NOT_PUBLISHED
    published = _effective(load_once(method.source, settings.overrides))
    return PUBLISHED if published == _effective(method.recipe) else CHANGED


def _effective(recipe: Recipe) -> dict[str, Any]:
    """The values that have an effect; the shots and the epoch that is read are told apart."""
    values = describe(recipe)
    return {key: v for key, v in values.items() if "." in key and key != "data.shots"}


Place = tuple[str, int]
"""A task and a number of shots."""


def _places(cells: Iterable[CellSettings]) -> list[Place]:
    return list(dict.fromkeys((cell.task, cell.shots) for cell in cells))


def _where(some: Sequence[Place], everything: Sequence[Place]) -> str:
    """Which of all tasks and numbers of shots some are, in words.

    Example:
        >>> places = [(task, shots) for task in ("A", "B", "C") for shots in (1, 2)]
        >>> _where(places, places), _where([("A", 1), ("B", 1), ("C", 1), ("A", 2)], places)
        ('all', 'K = 1; A (K = 2)')
        >>> _where([("B", 2), ("C", 2)], places)
        'all but A (K = 2)'
    """
    tasks = list(dict.fromkeys(task for task, _ in everything))
    if set(some) == set(everything):
        return tasks[0] if len(tasks) == 1 else "all"
    counts = list(dict.fromkeys(shots for _, shots in everything))
    by_tasks: dict[tuple[str, ...], list[int]] = {}
    for shots in counts:
        here = tuple(task for task in tasks if (task, shots) in some)
        if here:
            by_tasks.setdefault(here, []).append(shots)
    parts = []
    for names, at in by_tasks.items():
        others = [task for task in tasks if task not in names]
        k = "" if len(at) == len(counts) else f"K = {', '.join(map(str, at))}"
        if not others:
            parts.append(k)
            continue
        text = ", ".join(names)
        if len(others) < len(names):
            text = f"all but {', '.join(others)}"
        parts.append(f"{text} ({k})" if k else text)
    return "; ".join(parts)
