"""Writing files so that a reader never sees half of one, and nobody loses another file by it."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptot.errors import CannotWrite, PromptotError
from promptot.files.owned import kind_of, temporary_name

PIPE_SECONDS = 10.0
"""How long to wait for somebody to read a pipe."""
_WINDOWS_FULL = {39: errno.ENOSPC, 112: errno.ENOSPC}


@contextlib.contextmanager
def atomic_write(
    path: str | os.PathLike[str], pipe_seconds: float = PIPE_SECONDS
) -> Iterator[Path]:
    """Give a temporary path to write to; what is there comes to `path` on success.

    - A file is written beside its place and moved there in one step: a crash, an exception or a
      full disk leaves whatever stood there before, and no half-written file. Its permissions stay;
      another hard link of it keeps the old content.
    - Where a link leads, the file is written; the link stays.
    - A device or a pipe, such as /dev/null or /dev/stdout, is written straight into.

    Args:
        path: of the file.
        pipe_seconds: how long to wait for somebody to read a pipe.

    Raises:
        PromptotError: a folder, a disk or a socket is there, or the file can't be written: the disk
            is full, say, or somebody has taken away the right to.
    """
    target = Path(path)
    temporary: Path | None = None
    with system_errors(target):
        try:
            place = _place_of(target)
            if place is None:
                handle, name = tempfile.mkstemp(prefix="promptot-", suffix=target.suffix)
                os.close(handle)
                temporary = Path(name)
                yield temporary
                _pour(temporary, target, pipe_seconds)
                return
            place.parent.mkdir(parents=True, exist_ok=True)
            mode = 0o666 & ~_umask()
            owner: os.stat_result | None = None
            if place.exists():
                if not os.access(place, os.W_OK):
                    raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
                owner = place.stat()
                mode = owner.st_mode & 0o777
            temporary = place.with_name(temporary_name(place.suffix))
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            os.close(os.open(temporary, flags, 0o600))
            yield temporary
            with temporary.open("rb+") as file:
                os.fsync(file.fileno())
            if owner is not None and hasattr(os, "chown"):
                with contextlib.suppress(OSError):  # only root may give a file away
                    os.chown(temporary, owner.st_uid, owner.st_gid)
            temporary.chmod(mode)
            temporary.replace(place)
            temporary = None
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8, as it is) to `path`, as `atomic_write` does."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, as `atomic_write` does."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON to `path`, as `atomic_write` does; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name of bytes that are no text; JSON can escape those
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, f"{text}\n")


def output_folder(out: str | os.PathLike[str]) -> Path:
    """The folder that `--out` means, for every command; a link to a folder is followed.

    Raises:
        PromptotError: something else than a folder is there, or a link that leads nowhere.
    """
    given = Path(out)
    for place in (given, *given.parents):
        if kind_of(place) == "link" and not place.exists():
            raise PromptotError(f"'{place}' is a link to nothing.", fix="Choose another place.")
        if kind_of(place) != "nothing" and not place.is_dir():
            raise PromptotError(f"'{place}' is a file.", fix="Choose another place.")
    return given


def check_replaceable(folder: Path, *inputs: str | os.PathLike[str]) -> None:
    """Refuse to replace a folder as a whole where somebody stands or reads in it.

    Args:
        folder: that is to be replaced.
        inputs: files or folders that the command reads.

    Raises:
        PromptotError: it is the working directory or one above it, or holds an input.
    """
    place = Path(os.path.realpath(folder))
    for what, other in (
        ("the folder you are in", Path.cwd()),
        *(("a folder that is read", Path(given)) for given in inputs),
    ):
        within = Path(os.path.realpath(other))
        if place in (within, *within.parents):
            verb = "is" if place == within else "holds"
            raise PromptotError(
                f"'{folder}' {verb} {what}, and would be replaced.",
                fix="Choose a new folder of its own.",
            )


@contextlib.contextmanager
def system_errors(target: Path) -> Iterator[None]:
    """Errors of the system while something is written to `target`, in one sentence.

    Those that a compiled library (safetensors, tokenizers) reports in its own words count too.

    Raises:
        CannotWrite: see `explain`.
    """
    try:
        yield
    except OSError as error:
        raise explain(error, target) from error
    except Exception as error:
        reported = re.search(r"\(os error (\d+)\)", str(error))
        if reported is None or isinstance(error, PromptotError):
            raise
        number = int(reported[1])
        if os.name == "nt":
            number = _WINDOWS_FULL.get(number, number)
        raise explain(OSError(number, os.strerror(number)), target) from error


def explain(
    error: OSError, target: Path, fix: str = "Choose a folder you may write to."
) -> CannotWrite:
    """What an `OSError` while writing `target` means, and what to do about it."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return CannotWrite(
            f"No space left on the disk while writing '{target}'.",
            fix="Free some space or choose another folder; what was there before is intact.",
        )
    return CannotWrite(f"Can't write '{target}': {error.strerror or error}.", fix=fix)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _place_of(target: Path) -> Path | None:
    """Where a file is to be put, behind all links; None for what is written straight into.

    Raises:
        PromptotError: nothing can be written there.
        OSError: as the system says.
    """
    if _is_handle(target):
        return None
    try:
        mode = target.stat().st_mode
    except FileNotFoundError:
        return Path(os.path.realpath(target))
    if stat.S_ISREG(mode):
        return Path(os.path.realpath(target))
    if stat.S_ISCHR(mode) or stat.S_ISFIFO(mode):
        return None
    what = "a folder" if stat.S_ISDIR(mode) else "a disk" if stat.S_ISBLK(mode) else "a socket"
    raise PromptotError(f"Can't write '{target}': it is {what}.", fix="Give the name of a file.")


def _is_handle(target: Path) -> bool:
    """Whether it stands for a file that this process has open, such as /dev/stdout."""
    place = target
    for _ in range(40):  # as many links as the system follows
        parent = os.path.realpath(place.parent)
        if parent == "/dev/fd" or re.fullmatch(r"/proc/\d+/(task/\d+/)?fd", parent):
            return True
        if not place.is_symlink():
            return False
        place = Path(parent) / os.readlink(place)  # noqa: PTH115
    return False


def _pour(source: Path, target: Path, pipe_seconds: float) -> None:
    """Write a file's content straight into a device or a pipe."""
    flags = os.O_WRONLY | os.O_APPEND | getattr(os, "O_NOCTTY", 0)
    end = time.monotonic() + pipe_seconds
    while True:
        try:
            handle = os.open(target, flags | getattr(os, "O_NONBLOCK", 0))
            break
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > end:
                raise PromptotError(
                    f"Nobody reads the pipe '{target}'.", fix="Start what reads it first."
                ) from error
            time.sleep(0.05)
    with os.fdopen(handle, "wb") as sink, source.open("rb") as content:
        os.set_blocking(handle, True)
        shutil.copyfileobj(content, sink)
