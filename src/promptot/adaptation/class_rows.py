"""Which rows of what was learned for each class belong to which class names."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import cycle

import torch
import torch.nn.functional as F
from torch import Tensor

from promptot.errors import PromptotError


def rows_of_classes(
    class_names: Sequence[str], trained_names: Sequence[str], classes: int
) -> list[int] | None:
    """The row of each of `class_names` among parameters of `classes` classes; None for all rows.

    Args:
        class_names: to be served.
        trained_names: whose parameters they are, in their order.
        classes: how many there are.

    Raises:
        PromptotError: a name was not trained, or several were called so and not all are meant.
    """
    if classes != len(trained_names):
        raise PromptotError(
            f"There are parameters for {classes} classes, and {len(trained_names)} names.",
            fix="Give the class names that were trained on, in their order.",
        )
    rows: dict[str, list[int]] = {}
    for row, name in enumerate(trained_names):
        rows.setdefault(name, []).append(row)
    unknown = [name for name in class_names if name not in rows]
    if unknown:
        raise PromptotError(
            f"What was learned is specific to each of {classes} classes and can't serve "
            f"'{unknown[0]}'.",
            fix="Choose among the class names it was trained on, or train prompts that all "
            "classes share (prompts.class_specific=false).",
        )
    if tuple(class_names) == tuple(trained_names):
        return None
    counts = Counter(class_names)
    alike = [name for name, n in counts.items() if len(rows[name]) > 1 and n != len(rows[name])]
    if alike:
        raise PromptotError(
            f"{len(rows[alike[0]])} of the trained classes are called '{alike[0]}', and "
            f"{counts[alike[0]]} of these: which are meant can't be told.",
            fix="Give all of them, or the class names that were trained on.",
        )
    places = {name: cycle(own) for name, own in rows.items()}
    return [next(places[name]) for name in class_names]


class NamesRead:
    """Every name that is read for C classes: each class's own, and its synonyms behind it.

    A synonym that is itself one of the class names is left out.

    Attributes:
        names: all of them, N.
        classes: the class of each, [N] from 0; None if each class has one name.
    """

    def __init__(self, class_names: Sequence[str], synonyms: Mapping[str, Sequence[str]]) -> None:
        own = {name.casefold() for name in class_names}
        self._count = len(class_names)
        self.names: list[str] = []
        places: list[int] = []
        for place, name in enumerate(class_names):
            others = [s for s in synonyms.get(name, ()) if s.casefold() not in own]
            self.names += [name, *others]
            places += [place] * (1 + len(others))
        several = len(self.names) > self._count
        self.classes = torch.tensor(places) if several else None  # where it was last averaged

    def expand(self, rows: list[int] | None) -> Tensor | None:
        """Rows of parameters, one a class (None for all), as one a name, [N] long."""
        own = None if rows is None else torch.tensor(rows)
        if self.classes is None or own is None:
            return own if self.classes is None else self.classes
        return own[self.classes.cpu()]

    def average(self, features: Tensor) -> Tensor:
        """Features of all names [..., N, D] → normalised means by class [..., C, D]."""
        if self.classes is None:
            return features
        self.classes = self.classes.to(features.device)
        shape = (*features.shape[:-2], self._count, features.shape[-1])
        return F.normalize(features.new_zeros(shape).index_add(-2, self.classes, features), dim=-1)
