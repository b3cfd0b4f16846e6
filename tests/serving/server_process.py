"""`promptot serve` as a process of its own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

SOURCE = Path(__file__).parents[2] / "src"


@contextmanager
def serving(
    run: Path,
    *options: str,
    stop: int = signal.SIGTERM,
    handles: int | None = None,
    seconds: float | None = None,
    grace: float | None = None,
    log: Path | None = None,
    warns: bool = False,
) -> Iterator[str]:
    """Start it, give its address, and see that it ends well.

    Args:
        handles: that the process may open.
        seconds: that the headers of a request may take.
        grace: seconds that running requests get at the end.
        log: where its standard error goes after its first line; otherwise nothing may be in it.
        warns: whether it says at its start that others are let in.
    """
    code = "from promptot.cli import main; main()"
    if handles is not None:
        code = f"import resource as r; r.setrlimit(r.RLIMIT_NOFILE, ({handles}, {handles})); {code}"
    if seconds is not None:
        code = f"import promptot.serving.connections as c; c.HEADER_SECONDS = {seconds}; {code}"
    if grace is not None:
        code = f"import promptot.serving.server as s; s.GRACE = {grace}; {code}"
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
        drain = threading.Thread(target=_copy, args=(process.stderr, log), daemon=True)
        if log is not None:
            log.touch()
            drain.start()
        yield found.group()
    finally:
        process.send_signal(stop)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        if log is not None:
            drain.join(10)
        rest = process.stderr.read() if log is None else "Stopped."
        process.stderr.close()
        assert process.returncode == 0, rest
        assert rest.strip().splitlines() == ["Stopped."], rest
        assert ("no password" in said) == warns


def _copy(source: IO[str], log: Path) -> None:
    with log.open("a", encoding="utf-8") as file:
        for line in source:
            file.write(line)
            file.flush()
