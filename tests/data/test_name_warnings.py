from __future__ import annotations

import pytest

from promptot.backbones.tokenizer import ClipTokenizer
from promptot.data.name_warnings import name_warnings, same_tokens, same_tokens_sentence


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


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("fish &amp; chips", "fish & chips"),
        ("rock &amp;amp; roll", "rock & roll"),
        ("cat’s eye", "cat's eye"),
        ("“big” top", '"big" top'),
        ("&lt;3", "<3"),
    ],
)
def test_names_that_the_tokenizer_reads_as_one(first: str, second: str) -> None:
    encode = ClipTokenizer().encode
    found = name_warnings(["dog", first, second], tokens=encode, template="a photo of a {}.")
    same = [text for text in found if "same text" in text]
    assert same == [same_tokens_sentence(first, second)]
    assert not any("almost one name" in text for text in found)
    assert name_warnings(["dog", "cat", "fish and chips"], tokens=encode) == []


def test_synonyms_of_two_classes_are_compared_and_those_of_one_are_not() -> None:
    encode = ClipTokenizer().encode
    synonyms = {"cat": ("kitty’s", "kitty's"), "dog": ("hound",)}
    assert same_tokens(["cat", "dog"], encode, synonyms) == []
    synonyms["dog"] = ("kitty's",)
    assert same_tokens(["cat", "dog"], encode, synonyms) == [("kitty’s", "kitty's")]


def test_without_a_tokenizer_nothing_is_said_of_tokens() -> None:
    assert name_warnings(["fish &amp; chips", "fish & chips"]) == []
