"""What a log says of steps that it no longer keeps."""

from __future__ import annotations

import csv
import math
from pathlib import Path

from promptot.experiments.run_cell import _training
from promptot.training.training_log import MOST_STEPS, Log, StepRecord


def step(epoch: int, number: int, mass: float) -> StepRecord:
    return StepRecord(epoch, number, 0.1, 1.0, 1.0, 1.0, mass, *[0.0] * 4)


def filled(folder: Path | None, masses: list[list[float]], most: int = MOST_STEPS) -> Log:
    log = Log(folder, most)
    for epoch, row in enumerate(masses, start=1):
        log.add_epoch([step(epoch, n, mass) for n, mass in enumerate(row, start=1)], 1.0)
    return log


def test_the_largest_mass_is_that_of_all_steps(tmp_path: Path) -> None:
    """The one step that moved anything is left out of the thinned log."""
    masses = [[0.0, 0.0, 0.0, 0.0] for _ in range(20)]
    masses[6][1] = 0.75
    log = filled(tmp_path, masses, most=10)
    assert max(s.off_diagonal_mass for s in log.steps) == 0.0
    assert log.largest_off_diagonal_mass == 0.75
    assert _training(log)["largest_off_diagonal_mass"] == 0.75
    assert "largest_off_diagonal_mass" in _training(log)
    again = Log(tmp_path)
    again.restore()
    assert again.largest_off_diagonal_mass == 0.75
    fewer = Log(tmp_path)
    fewer.restore(5)
    assert fewer.largest_off_diagonal_mass == 0.0


def test_without_a_plan_there_is_no_mass() -> None:
    log = filled(None, [[math.nan, math.nan]])
    assert log.largest_off_diagonal_mass is None
    assert _training(log)["largest_off_diagonal_mass"] is None
    assert filled(None, [[math.nan, 0.5]]).largest_off_diagonal_mass == 0.5


def test_a_log_of_an_older_version_has_it_of_its_steps(tmp_path: Path) -> None:
    filled(tmp_path, [[0.0, 0.25], [0.0, 0.0]])
    path = tmp_path / "epochs.csv"
    with path.open(newline="") as file:
        rows = [dict(row) for row in csv.DictReader(file)]
    for row in rows:
        del row["largest_off_diagonal_mass"]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    log = Log(tmp_path)
    log.restore()
    assert log.largest_off_diagonal_mass == 0.25
