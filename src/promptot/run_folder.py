"""A run's folder: one run at a time in it, and an old one kept until a new one has finished.

A run writes straight into its folder. One that is to replace another writes into `.next` inside it;
when it has finished, that folder becomes `.finished` in one move, and then takes the old one's
place. Whatever is cut off on the way, the next run into the folder completes it.
"""

from __future__ import annotations

import contextlib
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from promptot.adapter import CARD, TENSORS
from promptot.errors import PromptotError
from promptot.files import explain

if TYPE_CHECKING:
    from filelock import FileLock

ADAPTER = "adapter"
CHECKPOINT = "checkpoint.safetensors"
MANIFEST = "manifest.json"
PREDICTIONS = "predictions.csv"
REPORT = "report.html"
CONTENTS = (ADAPTER, CHECKPOINT, MANIFEST, "steps.csv", "epochs.csv", PREDICTIONS, REPORT)
NEXT, FINISHED, LOCK = ".next", ".finished", ".lock"
OLD_ADAPTER = ".old-adapter"
LEFTOVERS = (".partial-*", OLD_ADAPTER)  # of writing that was cut off

LOCK_SECONDS = 10.0
"""How long to wait for a folder: the loading processes of a killed run hold on to it for 5 s."""


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if need be and goes if it stays empty.

    The system lets go of the lock when the process ends, however it ends.

    Raises:
        PromptotError: another run is at work there, or the folder can't be written to.
    """
    path = folder / LOCK
    lock = _wait_for(path)
    try:
        for place in (folder, folder / NEXT, folder / FINISHED):
            for pattern in LEFTOVERS:
                for left in place.glob(pattern):
                    _discard(left)
        yield
    finally:
        with contextlib.suppress(OSError):  # Windows can't remove it while it is open
            path.unlink()
        lock.release()
        with contextlib.suppress(OSError):
            folder.rmdir()


def check_run_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a place where a run can't be written, or would cost what is there.

    A finished run that was cut off while it took another's place takes it first.

    Raises:
        PromptotError: it is a file, it holds a run and neither flag is given, or there is no run to
            resume.
    """
    if overwrite and resume:
        raise PromptotError("--overwrite and --resume exclude each other.", fix="Choose one.")
    for place in (folder, *folder.parents):
        if place.exists() and not place.is_dir():
            raise PromptotError(f"'{place}' is a file.", fix="Choose another place for the run.")
    if (folder / FINISHED).is_dir():
        with locked(folder):
            complete_replacement(folder)
    foreign = _foreign(folder / ADAPTER)
    if foreign:
        raise PromptotError(
            f"'{folder / ADAPTER}' holds other files than an adapter, such as '{foreign[0]}'.",
            fix="Choose another folder for the run.",
        )
    complete = _holds(folder, ADAPTER) and not _holds(folder, CHECKPOINT)
    interrupted = _interrupted(folder)
    if resume:
        if interrupted is None and complete:
            raise PromptotError(
                f"The run in '{folder}' is complete.", fix="Use it, or start anew with --overwrite."
            )
        if interrupted is None:
            raise PromptotError(
                f"There is nothing to resume in '{folder}'.", fix="Start without --resume."
            )
    elif not overwrite and (interrupted is not None or _held(folder)):
        state = "an interrupted run" if interrupted is not None else "a run"
        if complete and interrupted is not None:
            state = "a run, and an interrupted one that is to replace it"
        go_on = "Go on with it (--resume), replace it" if interrupted is not None else "Replace it"
        raise PromptotError(
            f"'{folder}' already holds {state}.",
            fix=f"{go_on} (--overwrite), or choose another folder.",
        )


def place_of_work(folder: Path, resume: bool) -> Path:
    """Where the run writes until it has finished; emptied unless it resumes.

    Call it inside `locked`, after `check_run_folder`.

    Raises:
        PromptotError: an earlier attempt to replace the old run can't be removed.
    """
    interrupted = _interrupted(folder)
    if resume and interrupted is not None:
        return interrupted
    work = folder / NEXT if _held(folder) else folder
    if work != folder:
        try:
            _discard(work)
        except OSError as error:
            raise explain(error, work) from error
    return work


def finish(folder: Path, work: Path) -> None:
    """The run in `work` is complete: it takes its place in `folder`.

    Raises:
        PromptotError: the old run can't be removed; the new one then waits in `.finished`.
    """
    (work / CHECKPOINT).unlink(missing_ok=True)
    if work != folder:
        work.replace(folder / FINISHED)
        complete_replacement(folder)


def complete_replacement(folder: Path) -> None:
    """Let a finished run take the old one's place; nothing if none waits. It may be cut off."""
    finished = folder / FINISHED
    if not finished.is_dir():
        return
    try:
        if (finished / ADAPTER).exists():  # then nothing has been moved yet
            _remove_files(folder)
            old = _set_aside(folder)
            (finished / ADAPTER).replace(folder / ADAPTER)
            _discard(old)
        for path in list(finished.iterdir()):
            path.replace(folder / path.name)
        finished.rmdir()
    except OSError as error:
        raise explain(error, folder) from error


def abandon(folder: Path, work: Path) -> None:
    """A run failed: keep what it learnt, or leave nothing of it behind if that is nothing."""
    if has_checkpoint(work):
        return
    with contextlib.suppress(OSError, PromptotError):  # why it failed matters more
        if work != folder:
            _discard(work)
        else:
            remove_run(folder)


def has_checkpoint(folder: Path) -> bool:
    """Whether an interrupted run in `folder` has something to go on from."""
    return _holds(folder, CHECKPOINT) or _holds(folder / NEXT, CHECKPOINT)


def remove_run(folder: Path) -> None:
    """Remove a run; only what a run writes, the adapter first.

    Raises:
        PromptotError: something can't be removed.
    """
    try:
        _discard(_set_aside(folder))
        _remove_files(folder)
    except OSError as error:
        raise PromptotError(
            f"Can't remove the old run in '{folder}': {error.strerror}.",
            fix="Remove it by hand, or choose another folder.",
        ) from error


def _set_aside(folder: Path) -> Path:
    """Move the adapter, if there is one, out of the way in one step: no reader finds half of it."""
    aside = folder / OLD_ADAPTER
    if (folder / ADAPTER).exists():
        _discard(aside)
        (folder / ADAPTER).replace(aside)
    return aside


def _remove_files(folder: Path) -> None:
    for name in CONTENTS:
        if name != ADAPTER:
            (folder / name).unlink(missing_ok=True)


def _wait_for(path: Path) -> FileLock:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    end = time.monotonic() + LOCK_SECONDS
    while True:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            if _no_folder(path.parent):
                raise explain(error, path) from error
            continue
        except OSError as error:
            raise explain(error, path) from error
        try:
            lock.acquire(timeout=max(0.0, end - time.monotonic()))
        except FileNotFoundError:  # another run was there, left nothing and took the folder away
            continue
        except Timeout:
            raise PromptotError(
                f"Another run is being written to '{path.parent}'.",
                fix="Wait until it has finished, or choose another folder.",
            ) from None
        except OSError as error:
            if isinstance(error, FileExistsError) and not _no_folder(path.parent):
                continue
            raise explain(error, path) from error
        return lock


def _no_folder(path: Path) -> bool:
    """Whether something other than a folder lies there.

    ``mkdir(exist_ok=True)`` also says that a file exists where a folder stood that another run took
    away before ``mkdir`` could see what it was: then nothing, or a new folder, is there.
    """
    try:
        return not stat.S_ISDIR(path.lstat().st_mode)
    except FileNotFoundError:
        return False


def _interrupted(folder: Path) -> Path | None:
    """Where a run stands that has begun and not finished."""
    if (folder / NEXT).is_dir():
        return folder / NEXT
    begun = _holds(folder, MANIFEST) and not _holds(folder, ADAPTER)
    return folder if begun or _holds(folder, CHECKPOINT) else None


def _held(folder: Path) -> bool:
    return any(_holds(folder, name) for name in (*CONTENTS, FINISHED))


def _holds(folder: Path, name: str) -> bool:
    return (folder / name).exists()


def _discard(path: Path) -> None:
    """Remove what only promptot can have written."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _foreign(adapter: Path) -> list[str]:
    """What lies in an adapter folder that no run has put there."""
    if not adapter.is_dir():
        return []
    return sorted(path.name for path in adapter.iterdir() if path.name not in (CARD, TENSORS))
