"""SIGKILL at any moment: what was there is intact, and the run goes on to the same bits."""

from __future__ import annotations

import random
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
from killing import SETTINGS, Launcher, check_whole, contents, settle

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork and SIGKILL")

Whole = dict[str, tuple[dict[str, Any], float]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("trials")


@pytest.fixture(scope="module")
def whole(launcher: Launcher, folder: Path) -> Whole:
    """Of each setting: what an uninterrupted run leaves (in `old`), and how long it takes."""
    found = {}
    for setting in SETTINGS:
        out = folder / "old" / setting
        code, text, seconds = launcher.fit(out, setting)
        assert code == 0, text
        found[setting] = contents(out), seconds
    return found


def kill_somewhere(
    launcher: Launcher, out: Path, setting: str, draw: random.Random, seconds: float, **options: Any
) -> None:
    """Start or resume a run and kill it at a random moment; it may get through, too."""
    options["save_seconds"] = draw.choice([0, None])
    if draw.random() < 0.4:
        options["seconds"] = draw.uniform(0, seconds)
    elif draw.random() < 0.2:
        options["tear"] = draw.randint(1, 12)
    else:
        options["operation"] = draw.randint(1, 60)
    code, text, _ = launcher.fit(out, setting, **options)
    assert code in (0, -9) or "nothing to resume" in text or "is complete" in text, text


def trials(launcher: Launcher, whole: Whole, folder: Path, seed: int, kills: int) -> None:
    """Kill fresh, resumed and replacing runs at random until there have been so many kills."""
    draw = random.Random(seed)
    aim = launcher.kills + kills
    number = 0
    while launcher.kills < aim:
        number += 1
        setting = draw.choice(list(SETTINGS))
        expected, seconds = whole[setting]
        out = folder / f"run{number}"
        overwrite = draw.random() < 0.4
        if overwrite:
            old = draw.choice(list(SETTINGS))
            shutil.copytree(folder / "old" / old, out)
        kill_somewhere(launcher, out, setting, draw, seconds, overwrite=overwrite)
        for _ in range(draw.randint(1, 4)):
            check_whole(out)
            kill_somewhere(launcher, out, setting, draw, seconds, resume=True)
        settle(launcher, out, setting)
        if overwrite and contents(out) != expected:  # killed before the new run had begun
            assert contents(out) == whole[old][0]
            assert launcher.fit(out, setting, overwrite=True)[0] == 0
        assert contents(out) == expected, (seed, number, setting)
        shutil.rmtree(out)


def test_a_run_killed_anywhere_ends_in_the_same_bits(
    launcher: Launcher, whole: Whole, folder: Path
) -> None:
    trials(launcher, whole, folder, seed=1, kills=12)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_run_killed_in_hundreds_of_places(
    launcher: Launcher, whole: Whole, folder: Path, seed: int
) -> None:
    trials(launcher, whole, folder, seed, kills=100)
    print(f"seed {seed}: {launcher.kills} kills so far")


@pytest.mark.slow
@pytest.mark.parametrize("overwrite", [False, True])
def test_killed_before_every_file_operation(
    launcher: Launcher, whole: Whole, folder: Path, overwrite: bool
) -> None:
    """Each operation on a file is tried, from the first to the last of a run."""
    expected, operation = whole["averaged"][0], 0
    old = folder / "old" / "prompt-ot"
    while True:
        operation += 1
        out = folder / "run"
        if overwrite:
            shutil.copytree(old, out)
        code, text, _ = launcher.fit(out, "averaged", operation=operation, overwrite=overwrite)
        assert code in (0, -9), text
        if code == 0:
            break
        settle(launcher, out, "averaged")
        if overwrite and contents(out) != expected:
            assert contents(out) == contents(old)
            assert launcher.fit(out, "averaged", overwrite=True)[0] == 0
        assert contents(out) == expected, operation
        shutil.rmtree(out)
    print(f"killed before each of {operation - 1} operations")
    assert operation > 50
    assert contents(out) == expected
    shutil.rmtree(out)
