"""`promptot serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "src"


@contextmanager
def serving(run: Path, *options: str, stop: int = signal.SIGTERM) -> Iterator[str]:
    """Start it, give its address, and see that it ends well."""
    code = "from promptot.cli import main; main()"
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code, "serve", str(run), "--port", "0", "--device", "cpu", *options],
        stderr=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stderr is not None
    try:
        said = ""
        while not (found := re.search(r"http://\S+/", said)):
            line = process.stderr.readline()
            assert line, f"the server ended: {said}"
            said += line
        yield found.group()
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        rest = process.stderr.read()
        process.stderr.close()
        assert process.returncode == 0, rest
        assert rest.strip().splitlines() == ["Stopped."]
