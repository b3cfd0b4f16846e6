"""What runs pieces of work: in order, wherever that is, and what an end before its time costs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pickle import PicklingError

import pytest

from promptot.errors import PromptotError
from promptot.experiments.executor import ProcessExecutor, SerialExecutor


def counted(task: int) -> Iterator[tuple[int, int]]:
    """Results as they are made; 13 ends the process, 12 is an error that people can put right."""
    if task == 13:
        os._exit(7)
    if task == 12:
        raise PromptotError("Twelve is too much.", fix="Take eleven.")
    for number in range(task):
        yield task, number


def test_every_result_of_every_task_comes_in_order() -> None:
    tasks = [3, 0, 1, 2, 2]
    whole = [result for task in tasks for result in counted(task)]
    assert list(SerialExecutor().map(counted, tasks)) == whole


def test_nothing_runs_before_it_is_asked_for() -> None:
    results = SerialExecutor().map(counted, [1, 12])
    assert next(results) == (1, 0)
    with pytest.raises(PromptotError, match="Twelve"):
        next(results)


def test_processes_that_end_early_leave_the_rest_to_the_others(
    capfd: pytest.CaptureFixture[str],
) -> None:
    found: list[tuple[int, int]] = []
    with pytest.raises(PromptotError, match=r"2 of 3 processes ended early \(exit code [17]\)"):
        found.extend(ProcessExecutor(3).map(counted, [12, 13, 1, 0, 3, 1, 2]))
    assert sorted(found) == sorted(result for task in (1, 3, 1, 2) for result in counted(task))
    assert "Twelve is too much. Take eleven." in capfd.readouterr().out


def test_what_cannot_be_sent_is_said_as_it_is() -> None:
    with pytest.raises((AttributeError, PicklingError), match="pickle"):
        list(ProcessExecutor(2).map(lambda task: [task], [1]))
