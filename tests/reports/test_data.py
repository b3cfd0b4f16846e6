from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from promptot.reports import History, Measure, PlanPicture, Row, Table


@pytest.mark.parametrize("convert", [torch.tensor, np.array, list])
def test_off_diagonal_mass_of_any_kind_of_plan(convert):
    generator = np.random.default_rng(0)
    plan = generator.random((5, 5))
    picture = PlanPicture(convert(plan.tolist()), list("abcde"))
    expected = plan[~np.eye(5, dtype=bool)].sum() / plan.sum()
    assert picture.off_diagonal_mass == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("plan", "labels"), [([[1.0]], ["a", "b"]), ([[1.0, 0.0]], ["a"]), ([[0.0]], ["a"]), ([], [])]
)
def test_a_plan_that_is_none_is_refused(plan, labels):
    with pytest.raises(ValueError):
        PlanPicture(plan, labels)


def test_a_series_of_another_length_is_refused():
    with pytest.raises(ValueError, match="total: 1 values for 2 steps"):
        History("ot", [1, 2], {"total": [0.5]})


def test_an_empty_table_is_refused():
    with pytest.raises(ValueError, match="row"):
        Table(rows=[])


def test_a_row_hides_what_is_no_number():
    row = Row("x", {"a": None, "b": float("nan"), "c": 0.0, "d": Measure(0.5, (0.4, 0.6))})
    assert [row.measure(key) for key in "abe"] == [None, None, None]
    assert row.measure("c") == Measure(0.0)
    assert row.measure("d") == Measure(0.5, (0.4, 0.6))


def test_importing_reports_loads_nothing_heavy():
    code = (
        "import sys, promptot.reports; heavy = {'matplotlib', 'jinja2', 'torch', 'PIL', 'rich'}; "
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
