from __future__ import annotations

import pytest

from promptot.tasks.name_warnings import name_warnings


@pytest.mark.parametrize(
    ("names", "part"),
    [
        (["n01440764", "7", "class 3", "C12"], "4 names look like codes"),
        (["001.Black footed Albatross", "cat"], "1 name starts with a number"),
        (["RedFox", "cat"], "runs words together"),
        (["ox", "cat"], "'ox'"),
        (["misc", "cat"], "says nothing"),
        (["кошка", "cat"], "Latin"),
        (["x" * 61, "cat"], "very long"),
        (["hot dog", "Hotdogs"], "almost one name"),
    ],
)
def test_doubtful_names(names: list[str], part: str) -> None:
    found = name_warnings(names)
    assert len(found) == 1
    assert part in found[0]


def test_good_names() -> None:
    names = ["Boeing 747", "café crème", "grass", "Abyssinian", "bus", "type A battery"]
    assert name_warnings(names) == []
