"""Cells that no spreadsheet computes and no terminal obeys, and the texts that they were."""

from __future__ import annotations

import csv
import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from promptot.files.csv_text import OBEYED, Number, csv_line, read_cell, write_cell

SIGNS = "=+-@＝＋－＠﹦﹢﹣﹫"
BEFORE = ("", " ", "\u3000", "\u200b", "\x00", "'", "''")
HOSTILE = [
    *(f"{before}{sign}1" for sign in SIGNS for before in BEFORE),
    "\t1", "\r1", "\n1", "'\t1", "\x1b]0;title\x07", "\x9b31m", "\u202etxt.exe", "\u2066a",
    "\u2028=1", "a\udcff.png", "C:\\x86\\a.png", "\\x1b", "\\u202e", "\\\x1b", "\\x1\x1b",
    "\\\\x1b", "'", "'tis", "",
]  # fmt: skip


def is_taken_for_a_formula(cell: str) -> bool:
    """Whether what a spreadsheet trims leaves one of the signs first."""
    first = cell.lstrip(" \t\r\n\x00\u3000\u200b\u00a0\ufeff")[:1]
    return first in tuple(SIGNS) or cell[:1] in tuple("\t\r\n")


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_cells(text: str) -> None:
    cell = write_cell(text)
    assert not is_taken_for_a_formula(cell)
    assert not re.search(f"[{OBEYED}]", cell)
    assert read_cell(cell) == text


@given(st.text(alphabet=st.characters() | st.sampled_from("'\\xu01=+-@ \t\x1b\udcff"), max_size=12))
def test_every_text_comes_back(text: str) -> None:
    (cells,) = csv.reader(io.StringIO(csv_line(["a", text]), newline=""))
    assert read_cell(cells[1]) == text
    assert not is_taken_for_a_formula(cells[1])
    assert not re.search(f"[{OBEYED}]", cells[1])


def test_numbers_and_plain_names_stay_as_they_are() -> None:
    line = csv_line(
        ["hot dog", "ma petite «photo».png", "C:\\photos\\a.png", Number("-0.5"), -1, None]
    )
    assert line == "hot dog,ma petite «photo».png,C:\\photos\\a.png,-0.5,-1,\n"
    assert csv_line(['say "hi", twice']) == '"say ""hi"", twice"\n'
