from __future__ import annotations

from pathlib import Path

import pytest

from promptot.data import ImageTask
from promptot.data.readers.renaming import check_names, load_names, rename
from promptot.errors import PromptotError

EXPECTED = {"n01": ("tench",), "big cat": ("tiger", "big tabby")}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("n.json", '{"n01": "tench", "Big_cat": ["tiger", "big tabby"]}'),
        ("n.yaml", "n01: tench\nbig cat: [tiger, big_tabby]\n"),
        ("n.csv", "n01,tench\nbig_cat,tiger,big tabby\n"),
        ("n.tsv", "n01\ttench\nbig_cat\ttiger\tbig tabby\n"),
        ("n.txt", "n01 tench\n\nbig_cat tiger, big tabby\n"),
    ],
)
def test_every_form_of_the_mapping(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert load_names(tmp_path / name) == EXPECTED


def test_classes_are_renamed_in_their_order() -> None:
    task = ImageTask("zoo", ("Big cat", "n01", "owl"))
    renamed = rename(task, EXPECTED)
    assert renamed.class_names == ("tiger", "tench", "owl")
    assert renamed.synonyms == {"tiger": ("big tabby",)}
    assert renamed.select([1, 0]).class_names == ("tench", "tiger")


@pytest.mark.parametrize(
    ("names", "part"),
    [
        ({"a": "x", "b": "X"}, "comes twice"),
        ({"a": ["x", "x", "y"], "b": "y"}, "comes twice"),
        ({"a": ""}, "no name"),
        ({"a": 3}, "given 3"),
        ({"c": "x"}, "None of the classes"),
        ({"a": "b"}, "comes twice"),
    ],
)
def test_names_that_can_t_be_used(names: dict[str, object], part: str) -> None:
    with pytest.raises(PromptotError, match=part) as caught:
        rename(ImageTask("t", ("a", "b")), check_names(names))
    assert caught.value.fix


@pytest.mark.parametrize("text", ["[1]", "{", '{"a": ""}'])
def test_files_that_hold_no_mapping(tmp_path: Path, text: str) -> None:
    (tmp_path / "n.json").write_text(text)
    with pytest.raises(PromptotError, match="n.json"):
        load_names(tmp_path / "n.json")
    (tmp_path / "n.csv").write_text("a,x\na,y\n")
    with pytest.raises(PromptotError, match="'a' comes twice"):
        load_names(tmp_path / "n.csv")
