"""The table of test images is read back as it was written, whatever names hold."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import torch

from promptot.data import Example, ImageTask
from promptot.errors import PromptotError
from promptot.evaluation.predictions import COLUMNS, read_tested, write_predictions
from promptot.evaluation.scoring import Scores
from promptot.files.csv_text import read_cell

NAMES = ('say "cheese", please', "=1+1", "zwölf\nZeilen")


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    test = tuple(Example(f"pictures, all/{i}\n.png", i % 3) for i in range(5))
    task = ImageTask("t", NAMES, test=test, template="a {}.")
    logits = torch.eye(3)[[0, 1, 1, 0]]
    order = torch.tensor([4, 0, 2, 1])  # one image could not be read
    labels = torch.tensor([test[i].label for i in order.tolist()])
    scores = Scores(labels, 9 * logits, logits, order)
    write_predictions(tmp_path / "p.csv", {"test": task}, {"test": scores})
    with (tmp_path / "p.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert tuple(rows[0]) == COLUMNS
    assert [read_cell(row["adapted"]) for row in rows] == [NAMES[i] for i in (0, 1, 1, 0)]
    assert rows[1]["adapted"] == "'=1+1"  # no formula for a spreadsheet
    assert float(rows[0]["adapted_probability"]) > float(rows[0]["zero_shot_probability"])
    again = read_tested(tmp_path / "p.csv", {"test": NAMES, "unused": ("a",)}, "t", "a {}.")
    assert list(again) == ["test"]
    assert again["test"].test == tuple(test[i] for i in order.tolist())
    assert again["test"].class_names == NAMES


HEADER = ",".join(COLUMNS)


@pytest.mark.parametrize(
    "text", [None, "tested_on\nelsewhere\n", "\x00", HEADER + "\nx,a,b,c,1,d,1\n"]
)
def test_a_damaged_table_is_an_error_that_says_what_to_do(tmp_path: Path, text) -> None:
    if text is not None:
        (tmp_path / "p.csv").write_text(text, encoding="utf-8")
    else:
        (tmp_path / "p.csv").mkdir()
    with pytest.raises(PromptotError, match="Give a folder of images"):
        read_tested(tmp_path / "p.csv", {"test": NAMES}, "t", "a {}.")
