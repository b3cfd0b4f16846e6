"""`tune` says, as `fit` does, what it took for what in the data."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest


def test_the_notes_of_fit(
    run: Callable, classes: Callable[..., Path], tmp_path: Path, quick: list[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    for domain in ("art", "photo"):
        classes(f"domains/{domain}", images=8)
    said = "i The folders 'art', 'photo' were taken for the classes"
    fitted = run("fit", "domains", "--out", "run", *quick)
    assert said in " ".join(fitted.err.split()), fitted
    tuned = run(
        "tune", "domains", "--out", "tuning", "--budget", "1s",
        *(part for part in quick if part != "--no-report"),
    )  # fmt: skip
    assert tuned.code == 0, tuned
    assert said in " ".join(tuned.err.split()), tuned
