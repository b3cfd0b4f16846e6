"""Running commands in this process: exit code, standard output and standard error of each."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

COLOURS = {"blue": (30, 60, 210), "green_apple": (40, 180, 60), "red": (200, 30, 30)}


@dataclass(frozen=True)
class Result:
    code: int
    out: str
    err: str


Command = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    """`run("fit", folder, "--out", place)`: what `promptot fit ...` does, traceback or not."""
    from promptot.cli import main

    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: object) -> Result:
        capsys.readouterr()
        code: object = 0
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
        captured = capsys.readouterr()
        assert isinstance(code, int)
        return Result(code, captured.out, captured.err)

    return call


@pytest.fixture
def fails(run: Command) -> Callable[..., str]:
    """Run what must end with one short error and exit code 1; gives the error."""

    def call(*arguments: object) -> str:
        result = run(*arguments)
        assert result.code == 1, result
        assert result.out == ""
        message = result.err[result.err.index("Error: ") :]
        assert "Traceback" not in message
        problem, *fix = message.strip().splitlines()
        assert len(fix) <= 1, message
        return " ".join([problem.removeprefix("Error: "), *fix])

    return call


@pytest.fixture
def classes(tmp_path: Path) -> Callable[..., Path]:
    """Write class folders of these names, by default red, blue and green apple."""

    def make(name: str, labels: tuple[str, ...] = tuple(COLOURS), images: int = 4) -> Path:
        return write_classes(tmp_path / name, labels, images)

    return make


def write_classes(root: Path, labels: tuple[str, ...], images: int) -> Path:
    generator = np.random.default_rng(0)
    colours = list(COLOURS.values())
    for number, label in enumerate(labels):
        (root / label).mkdir(parents=True)
        for index in range(images):
            noise = generator.normal(0, 25, (24, 24, 3))
            pixels = np.clip(np.array(colours[number % len(colours)]) + noise, 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(root / label / f"{index}.png")
    return root


@pytest.fixture(scope="session")
def quick(clip_file: Path) -> list[str]:
    """Arguments of a `fit` that takes a fraction of a second."""
    model = ["--backbone", f"openai:{clip_file}", "--device", "cpu"]
    return [*model, "--set", "optim.epochs=1", "--shots", "2", "--no-report"]


@pytest.fixture(scope="session")
def trained_once(tmp_path_factory: pytest.TempPathFactory, quick: list[str]) -> Path:
    """A folder with `photos` and the run `run` on them."""
    from promptot.cli import main

    folder = tmp_path_factory.mktemp("trained")
    write_classes(folder / "photos", tuple(COLOURS), 4)
    main_arguments = ["fit", folder / "photos", "--out", folder / "run", *quick]
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in main_arguments])
    assert stop.value.code == 0
    return folder


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `trained_once` to spoil, and the working directory."""
    place = tmp_path / "trained"
    shutil.copytree(trained_once, place)
    monkeypatch.chdir(place)
    return place
