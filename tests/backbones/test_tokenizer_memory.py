"""Tokenizers that are asked for ever-new names give the same ids, and do not grow."""

from __future__ import annotations

import copy
import tracemalloc
from pathlib import Path

import pytest

from promptot.backbones import load_backbone, tokenizer
from promptot.backbones.tokenizer import ClipTokenizer, RecentWords, open_clip_module

STATM = Path("/proc/self/statm")


SMALL = 100


def names(count: int, start: int = 0) -> list[str]:
    letters = "abcdefghijklmnopqrstuvwxyz"
    return [
        f"{letters[n % 26]}{letters[n // 26 % 26]}{letters[n // 676 % 26]}zq wolf{n}"
        for n in range(start, start + count)
    ]


def test_the_ids_are_those_of_open_clip() -> None:
    ours, theirs = ClipTokenizer(words=SMALL), open_clip_module("tokenizer").SimpleTokenizer()
    for text in [
        *names(300),
        *names(300),
        "<start_of_text> a <end_of_text>",
        "x" * 500,
        "",
        "🐼 é",
    ]:
        assert ours.encode(text)[1:-1] == theirs.encode(text)


def test_words_are_forgotten_but_not_the_special_ones() -> None:
    words = RecentWords({"<s>": "<s>"}, SMALL)
    for number in range(1000):
        words[f"w{number}"] = "x"
        assert words["w0"] == "x"  # in use, so it stays
    assert len(words) == SMALL + 1
    assert words["<s>"] == "<s>"
    assert "w0" in words
    assert "w999" in words
    assert "w500" not in words
    words["y" * 300] = "z"
    assert "y" * 300 not in words
    again = copy.deepcopy(words)
    again["new"] = "x"
    assert len(again) == SMALL + 1
    assert again.always == words.always


def grown(encode, first: int, more: int) -> int:
    """Bytes that Python holds more of after `more` new names beyond `first`."""
    tracemalloc.start()
    for name in names(first):
        encode(name)
    before = tracemalloc.get_traced_memory()[0]
    for name in names(more, first):
        encode(name)
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    return after - before


def test_memory_is_flat_over_ever_new_names(clip_file) -> None:
    """The same with open_clip's own: the test can fail."""
    assert type(load_backbone(f"openai:{clip_file}").tokenizer) is ClipTokenizer
    assert grown(ClipTokenizer(words=SMALL).encode, 1000, 2000) < 20_000
    assert grown(open_clip_module("tokenizer").SimpleTokenizer().encode, 1000, 2000) > 200_000


def test_the_default_bound() -> None:
    own = ClipTokenizer()
    for number in range(tokenizer.MOST_WORDS + 500):
        own._bpe.cache[f"w{number}"] = "x"
    assert len(own._bpe.cache) <= tokenizer.MOST_WORDS + 2


@pytest.mark.skipif(not STATM.exists(), reason="memory is read from Linux's /proc")
def test_the_tokenizers_library_bounds_its_own_memory() -> None:
    """That of the bundled model and of transformers; 60,000 words would be some 10 MB."""
    encode = load_backbone("bundled:tiny").tokenizer.encode

    def resident(first: int, more: int) -> int:
        for name in names(more, first):
            encode(name)
        return int(STATM.read_text().split()[1]) * 4096

    before = resident(0, 15_000)
    assert resident(15_000, 30_000) < before + 4 * 2**20
