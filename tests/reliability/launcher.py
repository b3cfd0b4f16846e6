"""A process that has PyTorch and a small backbone loaded, and forks a training process per order.

Started by `killing.Launcher`. It reads orders as JSON lines and answers each with a JSON line. The
child trains as `promptot.fit` does; it is killed (SIGKILL, which nothing can catch) after some
seconds, or right before its n-th operation on files below the run folder.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

torch.set_num_threads(1)

import promptot  # noqa: E402
from promptot.backbones import Backbone, load_backbone  # noqa: E402
from promptot.runs.run_folder import locked  # noqa: E402

FILE_EVENTS = {"open", "os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod"}


def kill_before(operation: int, folder: Path) -> None:
    """Let this process die before its n-th operation on files below `folder`."""
    below, seen = str(folder), 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in FILE_EVENTS and str(arguments[0]).startswith(below):
            seen += 1
            if seen == operation:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def tear_at(operation: int) -> None:
    """Let this process die before its n-th fsync, with half of the file written."""
    sync, seen = os.fsync, 0

    def torn(handle: int) -> None:
        nonlocal seen
        seen += 1
        if seen == operation:
            os.truncate(handle, os.fstat(handle).st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        sync(handle)

    os.fsync = torn  # type: ignore[assignment]


def work(order: dict[str, Any], backbone: Backbone) -> None:
    """Train as ordered; never returns."""
    code = 1
    with open(os.devnull, "w") as silence, contextlib.redirect_stderr(silence):  # noqa: PTH123
        try:
            out = Path(order["out"])
            if order.get("operation"):
                kill_before(order["operation"], out)
            if order.get("tear"):
                tear_at(order["tear"])
            saving = {}
            if order.get("save_seconds") is not None:
                saving["save_seconds"] = order["save_seconds"]
            if "hold" in order:
                with locked(out):
                    print("held", flush=True)
                    time.sleep(60)
            promptot.fit(
                order["data"],
                out,
                backbone=backbone,
                recipe=order["recipe"],
                shots=3,
                overrides=order["overrides"],
                device="cpu",
                workers=order.get("workers", 0),
                overwrite=order.get("overwrite", False),
                resume=order.get("resume", False),
                **saving,
                report=False,  # written from a finished run, and again by `promptot report`
            )
            code = 0
        except promptot.PromptotError as error:
            Path(order["note"]).write_text(str(error), encoding="utf-8")
        except BaseException as error:
            Path(order["note"]).write_text(f"UNEXPECTED {error!r}", encoding="utf-8")
        finally:
            os._exit(code)


def load_what_a_run_needs(data: str, backbone: Backbone) -> None:
    """Imports are made here once, and not in each child."""
    with tempfile.TemporaryDirectory() as place:
        promptot.fit(data, place, backbone=backbone, recipe="zero-shot", device="cpu", report=False)


def main() -> None:
    backbone = load_backbone(sys.argv[1])
    backbone.identity()
    known = False
    for line in sys.stdin:
        order = json.loads(line)
        if not known and "data" in order:
            load_what_a_run_needs(order["data"], backbone)
            known = True
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            work(order, backbone)
        if order.get("seconds") is not None:
            time.sleep(order["seconds"])
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        answer = {"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - began}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
