"""A run's folder: one run at a time in it, and an old one kept until a new one has finished.

A run writes straight into its folder. One that is to replace another writes into `.next` inside it;
when it has finished, that folder becomes `.finished` in one move, and then takes the old one's
place. Whatever is cut off on the way, the next run into the folder completes it.

Only what a run has written is moved or removed (see `promptot.files.owned`): a folder where one of
the names that it needs is taken by something else is refused before anything is touched.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from promptot.errors import PromptotError
from promptot.files.locks import LockFile, check_lock
from promptot.files.owned import (
    MARKER,
    head_of,
    is_marked,
    is_temporary,
    kind_of,
    make_folder,
    mark,
    remove_folder,
    sweep,
    temporary_name,
    unknown_in,
)
from promptot.files.reading import Unreadable, parse_json
from promptot.files.writing import output_folder, system_errors
from promptot.runs.adapter import TENSORS
from promptot.runs.card import CARD, is_card
from promptot.runs.manifest import MANIFEST, is_manifest

ADAPTER = "adapter"
CHECKPOINT = "checkpoint.safetensors"
PREDICTIONS = "predictions.csv"
REPORT = "report.html"
FILES = (CHECKPOINT, "steps.csv", "epochs.csv", PREDICTIONS, REPORT, MANIFEST)
"""In the order in which they are removed: the manifest says that the others are a run's."""
CONTENTS = (ADAPTER, *FILES)
NEXT, FINISHED, LOCK = ".next", ".finished", ".lock"

LOCK_SECONDS = 10.0
"""How long to wait for a folder: the loading processes of a killed run hold on to it for 5 s."""
_EARLIER_TEMPORARY = re.compile(r"\.partial-[a-z0-9_]{8}(\.\w+)?", re.ASCII)


@contextlib.contextmanager
def locked(folder: Path, seconds: float | None = None) -> Iterator[None]:
    """Keep other runs out of `folder`, which is made if need be and then goes if it stays empty.

    The system lets go of the lock when the process ends, however it ends.

    Args:
        seconds: how long to wait for another run; by default `LOCK_SECONDS`.

    Raises:
        PromptotError: another run is at work there, something else takes a name that a run needs,
            or the folder can't be written to.
    """
    refuse_foreign(folder)
    lock = LockFile(folder / LOCK, folder_too=True)
    with system_errors(folder / LOCK):
        if not lock.acquire(LOCK_SECONDS if seconds is None else seconds):
            raise PromptotError(
                f"Another run is being written to '{folder}'.",
                fix="Wait until it has finished, or choose another folder.",
            )
    try:
        with system_errors(folder):
            for place in (folder, folder / NEXT, folder / FINISHED):
                if place == folder or is_marked(place):
                    sweep(place, lambda path: not _unknown(path))
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def writing(folder: Path, overwrite: bool = False) -> Iterator[Path]:
    """A place to write a whole run into, which then stands in `folder`; or nothing of it does.

    Raises:
        PromptotError: see `check_run_folder` and `locked`.
    """
    check_run_folder(folder, overwrite)
    with locked(folder):
        complete_replacement(folder)
        check_free(folder, overwrite, resume=False)
        work = place_of_work(folder, resume=False)
        try:
            yield work
            finish(folder, work)
        except BaseException:
            abandon(folder, work)
            raise


def refuse_foreign(folder: Path) -> None:
    """Refuse a folder where something else takes a name that a run needs. Nothing is touched.

    Raises:
        PromptotError: with the name of what is in the way.
    """
    for _ in range(2):  # a run may be at work there, so that what one look sees does not fit
        if _foreign(folder) is None:
            return
        time.sleep(0.02)
    problem = _foreign(folder)
    if problem is not None:
        raise problem


def check_run_folder(folder: Path, overwrite: bool = False, resume: bool = False) -> None:
    """Refuse a place where a run can't be written, or would cost what is there.

    A finished run that was cut off while it took another's place takes it first, and temporary
    files that an interruption has left are removed.

    Raises:
        PromptotError: it is a file, it holds a run and neither flag is given, there is no run to
            resume, or something else takes a name that a run needs.
    """
    if overwrite and resume:
        raise PromptotError("--overwrite and --resume exclude each other.", fix="Choose one.")
    output_folder(folder)
    refuse_foreign(folder)
    if kind_of(folder / FINISHED) == "folder" or _leftovers(folder):
        with locked(folder):
            complete_replacement(folder)
    check_free(folder, overwrite, resume)


def check_apart(out: Path, data: Path) -> None:
    """Refuse an output folder inside a folder of images."""
    place = out.resolve()
    if data.is_dir() and data.resolve() in (place, *place.parents):
        raise PromptotError(
            f"The run folder '{out}' lies in the image folder '{data}', where folders are classes.",
            fix="Choose a place outside it.",
        )


def check_free(folder: Path, overwrite: bool, resume: bool) -> None:
    """Refuse a folder whose run neither flag gives free, or that has none to resume.

    A complete run may be resumed: there is nothing left to do (see `is_complete`).

    Raises:
        PromptotError: with the flags that it takes.
    """
    complete = _holds(folder, ADAPTER) and not _holds(folder, CHECKPOINT)
    interrupted = _interrupted(folder)
    if resume:
        if interrupted is None and not complete:
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


def is_complete(folder: Path) -> bool:
    """Whether a run stands there that has finished, and none waits to be gone on with."""
    return _holds(folder, ADAPTER) and _interrupted(folder) is None


def place_of_work(folder: Path, resume: bool) -> Path:
    """Where the run writes until it has finished; emptied unless it resumes.

    Call it inside `locked`, after `check_run_folder`.

    Raises:
        PromptotError: an earlier attempt to replace the old run can't be removed.
    """
    interrupted = _interrupted(folder)
    work = folder / NEXT
    with system_errors(work):
        if resume and interrupted is not None:
            if interrupted == work:
                _adopt(work)
            return interrupted
        remove_folder(work)
        if not _held(folder):
            return folder
        make_folder(work)
    return work


def finish(folder: Path, work: Path) -> None:
    """The run in `work` is complete: it takes its place in `folder`.

    Raises:
        PromptotError: the old run can't be removed; the new one then waits in `.finished`.
    """
    with system_errors(folder):
        (work / CHECKPOINT).unlink(missing_ok=True)
        if work != folder:
            work.replace(folder / FINISHED)
    complete_replacement(folder)


def complete_replacement(folder: Path) -> None:
    """Let a finished run take the old one's place; nothing if none waits. It may be cut off."""
    finished = folder / FINISHED
    if kind_of(finished) != "folder":
        return
    with system_errors(folder):
        _adopt(finished)
        if _holds(finished, ADAPTER):  # then nothing has been moved yet
            _remove_files(folder)
            old = _set_aside(folder)
            (finished / ADAPTER).replace(folder / ADAPTER)
            remove_folder(old)
        for name in FILES:
            if _holds(finished, name):
                (finished / name).replace(folder / name)
        (finished / MARKER).unlink()
        finished.rmdir()


def abandon(folder: Path, work: Path) -> None:
    """A run failed: keep what it learnt, or leave nothing of it behind if that is nothing."""
    if has_checkpoint(work):
        return
    with contextlib.suppress(OSError, PromptotError):  # why it failed matters more
        if work != folder:
            remove_folder(work)
        else:
            remove_run(folder)


def holds_run(folder: Path) -> bool:
    """Whether a run, or the beginning of one, is in a folder."""
    names = (MANIFEST, CHECKPOINT, ADAPTER)
    return any(_IS_OURS[name](folder / name) for name in names) or is_marked(folder / NEXT)


def has_checkpoint(folder: Path) -> bool:
    """Whether an interrupted run in `folder` has something to go on from."""
    return _holds(folder, CHECKPOINT) or _holds(folder / NEXT, CHECKPOINT)


def remove_run(folder: Path) -> None:
    """Remove a run; only what a run writes, the adapter first.

    Raises:
        PromptotError: something can't be removed.
    """
    try:
        remove_folder(_set_aside(folder))
        _remove_files(folder)
    except OSError as error:
        raise PromptotError(
            f"Can't remove the old run in '{folder}': {error.strerror}.",
            fix="Remove it by hand, or choose another folder.",
        ) from error


def _set_aside(folder: Path) -> Path:
    """Move the adapter, if there is one, out of the way in one step: no reader finds half of it."""
    aside = folder / temporary_name()
    if _holds(folder, ADAPTER):
        (folder / ADAPTER).replace(aside)
    return aside


def _remove_files(folder: Path) -> None:
    for name in FILES:
        (folder / name).unlink(missing_ok=True)


def _adopt(work: Path) -> None:
    """Mark a working folder of an earlier version, which `refuse_foreign` has looked through."""
    if is_marked(work):
        return
    for path in list(work.iterdir()):
        if _EARLIER_TEMPORARY.fullmatch(path.name):
            path.unlink() if kind_of(path) == "file" else remove_folder(path)
    mark(work)


def _leftovers(folder: Path) -> bool:
    """Whether there is something to sweep away."""
    with contextlib.suppress(FileNotFoundError):
        return any(
            is_temporary(path.name)
            and (kind_of(path) == "file" or (kind_of(path) == "folder" and not _unknown(path)))
            for path in folder.iterdir()
        )
    return False


def _interrupted(folder: Path) -> Path | None:
    """Where a run stands that has begun and not finished."""
    if kind_of(folder / NEXT) == "folder":
        return folder / NEXT
    begun = _holds(folder, MANIFEST) and not _holds(folder, ADAPTER)
    return folder if begun or _holds(folder, CHECKPOINT) else None


def _held(folder: Path) -> bool:
    return any(_holds(folder, name) for name in (*CONTENTS, FINISHED))


def _holds(folder: Path, name: str) -> bool:
    return kind_of(folder / name) != "nothing"


# What is a run's, and what is not


def _foreign(folder: Path) -> PromptotError | None:
    """What is in a run's way, as an error; None if nothing is."""
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        check_lock(folder / LOCK)
        present = [name for name in CONTENTS if _holds(folder, name)]
        for place in (folder / NEXT, folder / FINISHED):
            problem = _foreign_work(place)
            if problem is not None:
                return problem
        for name in present:
            wanted = "folder" if name == ADAPTER else "file"
            if kind_of(folder / name) not in (wanted, "nothing"):
                return _refusal(folder / name)
        if ADAPTER in present:
            unknown = _unknown(folder / ADAPTER, (CARD, TENSORS))
            if unknown:
                return PromptotError(
                    f"'{folder / ADAPTER}' holds other files than an adapter, such as "
                    f"'{unknown[0]}'.",
                    fix="Choose another folder for the run.",
                )
        signs = {name: _IS_OURS[name](folder / name) for name in (MANIFEST, CHECKPOINT, ADAPTER)}
        for name in (MANIFEST, CHECKPOINT):
            if name in present and signs[name] is False:
                return _refusal(folder / name)
        if present and not any(signs.values()):
            return _refusal(folder / present[0])
    return None


def _foreign_work(work: Path) -> PromptotError | None:
    """What is wrong with a working folder, as an error; None if there is none, or it is ours."""
    kind = kind_of(work)
    if kind == "nothing" or (kind == "folder" and not any(work.iterdir())):
        return None
    if kind != "folder":
        return _refusal(work)
    if not is_marked(work):
        return None if _is_of_an_earlier_version(work) else _refusal(work)
    unknown = _unknown(work)
    return _refusal(work / unknown[0]) if unknown else None


def _refusal(path: Path) -> PromptotError:
    return PromptotError(
        f"'{path}' is not of a run, and a run needs this name.",
        fix="Move it away, or choose another folder for the run.",
    )


def _unknown(place: Path, known: tuple[str, ...] = (*FILES, MARKER, CARD, TENSORS)) -> list[str]:
    """Names in a folder that no run has put there."""

    def is_folder_of_ours(path: Path) -> bool:
        named = path.name == ADAPTER or is_temporary(path.name)
        return named and kind_of(path) == "folder" and not _unknown(path, known)

    return unknown_in(place, known, is_folder_of_ours)


def _is_of_an_earlier_version(work: Path) -> bool:
    """Whether an unmarked folder holds what runs wrote before folders were marked, and no more."""
    found = False
    for path in work.iterdir():
        if _EARLIER_TEMPORARY.fullmatch(path.name):
            kind = kind_of(path)
            if kind == "folder" and _unknown_to_earlier(path):
                return False
            if kind not in ("file", "folder"):
                return False
        elif path.name in _IS_OURS and _IS_OURS[path.name](path):
            found = True
        elif path.name != REPORT or kind_of(path) != "file":
            return False
    return found


def _unknown_to_earlier(place: Path) -> list[str]:
    def is_temporary_file(path: Path) -> bool:
        return _EARLIER_TEMPORARY.fullmatch(path.name) is not None and kind_of(path) == "file"

    return unknown_in(place, (CARD, TENSORS), is_temporary_file)


def _is_checkpoint(path: Path) -> bool | None:
    """Whether a file is a run's checkpoint; None if there is none, or it is damaged."""
    head = head_of(path, 8)
    size = int.from_bytes(head, "little")
    if len(head) < 8 or size > 2**26:
        return None
    try:
        said = parse_json(head_of(path, 8 + size)[8:]).get("__metadata__", {})
        return {"epoch", "run"} <= said.keys()
    except (Unreadable, AttributeError):
        return None


def _is_adapter(path: Path) -> bool | None:
    """Whether a folder holds an adapter; None if there is no card, or a damaged one."""
    if _unknown(path, (CARD, TENSORS)) if kind_of(path) == "folder" else True:
        return None
    return is_card(path / CARD)


def _starts_with(head: str) -> Callable[[Path], bool | None]:
    return lambda path: head_of(path, len(head)) == head.encode() or None


_IS_OURS: dict[str, Callable[[Path], bool | None]] = {
    MANIFEST: is_manifest,
    CHECKPOINT: _is_checkpoint,
    ADAPTER: _is_adapter,
    "steps.csv": _starts_with("epoch,step,lr,total,"),
    "epochs.csv": _starts_with("epoch,steps,lr,total,"),
    PREDICTIONS: _starts_with("tested_on,image,class_name,"),
}
