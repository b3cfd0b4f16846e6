from __future__ import annotations

from pathlib import Path

import pytest

from promptot.data.anchor_words import EVERYDAY_WORDS, load_vocabulary
from promptot.errors import PromptotError


def test_the_list_that_ships_is_about_a_thousand_distinct_words() -> None:
    words = load_vocabulary()
    assert 900 <= len(words) <= 1100
    assert len({word.casefold() for word in words}) == len(words)
    assert list(words) == sorted(words, key=str.casefold)
    assert words == tuple(EVERYDAY_WORDS.read_text().splitlines())
    assert all(len(word.split()) <= 3 and word.isascii() for word in words)


def test_reads_a_file_as_class_names_are_read(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes("\ufeffgolden_retriever\r\n\n  cafe\u0301 \nBoat".encode())
    assert load_vocabulary(file) == ("golden retriever", "café", "Boat")
    assert load_vocabulary(file, exclude=["Golden_Retriever", "ship"]) == ("café", "Boat")


@pytest.mark.parametrize(
    ("content", "part"),
    [
        (b"", "no class names"),
        (b"\n \n", "no class names"),
        (b"cat\nCat\n", "'Cat' comes twice"),
        (b"_\n", "empty"),
        (b"\xff\xfe\x00", "can't be read"),
    ],
)
def test_refuses(tmp_path: Path, content: bytes, part: str) -> None:
    file = tmp_path / "words.txt"
    file.write_bytes(content)
    with pytest.raises(PromptotError, match=part) as caught:
        load_vocabulary(file)
    assert "words.txt" in str(caught.value)
    assert "one word a line" in str(caught.value)


def test_refuses_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(PromptotError, match="can't be read"):
        load_vocabulary(tmp_path / "none.txt")
    with pytest.raises(PromptotError, match="can't be read"):
        load_vocabulary(tmp_path)
