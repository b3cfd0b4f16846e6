"""Stopping a run while it trains: with a signal to this process, and to a real one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from promptot.training.checkpoint import read_checkpoint

STOPS = [(signal.SIGINT, 130, "Interrupted."), (signal.SIGTERM, 143, "Terminated.")]
LEFT = {"checkpoint.safetensors", "manifest.json", "steps.csv", "epochs.csv"}

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals")


@pytest.fixture(autouse=True)
def as_at_a_terminal() -> Iterator[None]:
    """Ctrl-C is heard, also where tests run in the background of a shell that ignores it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(("number", "code", "word"), STOPS)
def test_a_stopped_run_goes_on_to_the_same_bits(
    run, trained: Path, quick: list[str], monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, code: int, word: str,
) -> None:  # fmt: skip
    replace = Path.replace

    def replace_and_stop(file: Path, target: Path) -> None:
        replace(file, target)
        if target.name == "checkpoint.safetensors":
            state = read_checkpoint(target)
            if (state.epoch, state.step) == (2, 0):
                os.kill(os.getpid(), number)

    def fit(out: str, *more: str) -> list[str]:
        return ["fit", "photos", "--out", out, *quick, "--set", "optim.epochs=4", *more]

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", replace_and_stop)
        stopped = run(*fit("out"))
    assert stopped.code == code
    assert stopped.out == ""
    assert word in stopped.err
    assert "the same command with --resume goes on" in stopped.err
    assert {path.name for path in Path("out").iterdir()} == LEFT
    assert run(*fit("out", "--resume")).code == 0
    assert run(*fit("whole")).code == 0
    whole, resumed = (Path(out, "adapter/prompts.safetensors") for out in ("whole", "out"))
    assert whole.read_bytes() == resumed.read_bytes()


@pytest.mark.parametrize(("number", "code", "word"), STOPS)
def test_a_stopped_benchmark_goes_on(
    run, trained: Path, clip_file: Path, monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals, code: int, word: str,
) -> None:  # fmt: skip
    sync = os.fsync
    arguments = (
        *("benchmark", "few-shot", "--tasks", "photos", "--out", "bench", "--shots", "1,2"),
        *("--methods", "zero-shot,ivlp", "--seeds", "1", "--set", "optim.epochs=1"),
        *("--backbone", f"openai:{clip_file}", "--device", "cpu"),
    )

    def sync_and_stop(handle: int) -> None:
        sync(handle)
        results = Path("bench/results.jsonl")
        if results.exists() and os.path.samestat(os.fstat(handle), results.stat()):
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", sync_and_stop)
        stopped = run(*arguments)
    assert stopped.code == code
    assert stopped.out == ""
    assert word in stopped.err
    assert "the same command goes on from there" in stopped.err
    assert len(Path("bench/results.jsonl").read_text().splitlines()) == 1
    went_on = run(*arguments)
    assert went_on.code == 0
    assert "[2/4]" in went_on.err
    assert "[1/4]" not in went_on.err
    assert len(Path("bench/results.jsonl").read_text().splitlines()) == 4


def test_control_c_in_a_real_process(trained: Path, quick: list[str]) -> None:
    arguments = ["fit", "photos", "--out", "out", *quick, "--set", "optim.epochs=100000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "promptot", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    try:
        deadline = time.monotonic() + 120
        while not Path("out/checkpoint.safetensors").exists():
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, "")
    assert "Interrupted." in err
    assert "Traceback" not in err
    assert {path.name for path in Path("out").iterdir()} == LEFT
