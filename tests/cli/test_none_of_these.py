"""What `promptot predict` says of images that show none of the names; only a sigmoid can tell."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

import promptot
from promptot import Prediction

ANSWERS = (("photos/red/0.png", (0.4, 0.1)), ("photos/red/1.png", (0.9, 0.8)))


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, trained: Path) -> Callable[[str], None]:
    """`answers("sigmoid")`: what any run answers for three images, of which one can't be read."""

    def set_fit(fit: str) -> None:
        found = [Prediction(i, ("cat", "dog"), sure, fit=fit) for i, sure in ANSWERS]
        found.append(Prediction("none.png", (), (), "there is no such file", fit))
        classifier = SimpleNamespace(classify=lambda *_: found)
        monkeypatch.setattr(promptot, "load", lambda *_, **__: classifier)

    return set_fit


IMAGES = ("predict", "run", "photos/red/0.png", "photos/red/1.png", "none.png")


def test_a_sigmoid_says_so(run: Callable, answers: Callable[[str], None]) -> None:
    answers("sigmoid")
    table = run(*IMAGES).out
    assert table.count("none of these") == 1
    assert table.index("none of these") < table.index("cat")
    lines = [json.loads(line) for line in run(*IMAGES, "-f", "jsonl").out.splitlines()]
    assert [line["none_of_these"] for line in lines] == [True, False, None]
    rows = list(csv.DictReader(io.StringIO(run(*IMAGES, "-f", "csv").out)))
    assert [row["none_of_these"] for row in rows] == ["true", "true", "false", "false", ""]
    assert rows[-1]["problem"] == "there is no such file"


def test_a_softmax_does_not(run: Callable, answers: Callable[[str], None]) -> None:
    answers("softmax")
    for form in ("table", "jsonl", "csv"):
        out = run(*IMAGES, "-f", form).out
        assert "none of these" not in out
        assert "none_of_these" not in out
