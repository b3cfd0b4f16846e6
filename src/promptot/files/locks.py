"""Taking turns with other processes: lock files, and files that several append to."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from collections.abc import Callable
from io import FileIO
from pathlib import Path

from promptot.errors import PromptotError
from promptot.files.owned import head_of, kind_of
from promptot.files.writing import explain

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

TEXT = b"promptot is at work here. 0c1f6c5e7d8b4b0c9a63f4f7a8e2d915\n"
FOLDER_TOO = TEXT + b"It made this folder, which goes if it stays empty.\n"
PAUSE = 0.05  # seconds between two looks at a lock that another process holds


class LockFile:
    """A file that one process holds at a time, and that is gone when none does.

    The system lets go of it when the process ends, however it ends. A file that somebody else put
    at this place is refused and left as it is; an empty one is used and left there.

    Args:
        path: the file.
        folder_too: make the folder that it lies in where there is none, and remove that one again
            if nothing else is in it at the end.
    """

    def __init__(self, path: Path, folder_too: bool = False) -> None:
        self.path = path
        self._folder_too = folder_too
        self._handle: int | None = None
        self._content = b""

    def acquire(self, seconds: float = 0.0) -> bool:
        """Whether it could be had within some seconds.

        Raises:
            PromptotError: something else lies there.
            OSError: as the system says.
        """
        end = time.monotonic() + seconds
        while True:
            handle = self._open()
            held = None if handle is None else self._hold(handle)
            if held:
                return True
            if held is None:  # the file has gone in between: look again
                continue
            if time.monotonic() >= end:
                return False
            time.sleep(PAUSE)

    def release(self) -> None:
        """Let go of it, and remove what `acquire` has made."""
        if self._handle is None:
            return
        handle, self._handle = self._handle, None
        if self._content in (TEXT, FOLDER_TOO):
            with contextlib.suppress(OSError):  # Windows can't remove what is open
                self.path.unlink()
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_UN)  # also for the processes that inherited it
        os.close(handle)
        if self._content == FOLDER_TOO:
            with contextlib.suppress(OSError):
                self.path.parent.rmdir()

    def _open(self) -> int | None:
        """A handle of the file; None if it has gone in between."""
        flags = os.O_RDWR | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_NOFOLLOW", 0)
        made = self._folder_too and _make(self.path.parent)
        try:
            handle = os.open(self.path, flags | os.O_CREAT | os.O_EXCL, 0o666)
        except FileExistsError:
            check_lock(self.path)
            try:
                return os.open(self.path, flags)
            except FileNotFoundError:
                return None
        except FileNotFoundError:
            if self._folder_too:  # another process was there, left nothing and took it away
                return None
            raise
        try:
            os.write(handle, FOLDER_TOO if made else TEXT)
        except BaseException:
            os.close(handle)
            self.path.unlink(missing_ok=True)
            raise
        return handle

    def _hold(self, handle: int) -> bool | None:
        """Whether an open file is free, and then locked; None if it is no longer in its place."""
        held = None
        try:
            if not _try_lock(handle):
                held = False
            elif _is_at(handle, self.path):
                os.lseek(handle, 0, os.SEEK_SET)
                self._content = os.read(handle, len(FOLDER_TOO) + 1)
                self._handle = handle
                held = True
        finally:
            if not held:
                os.close(handle)
        return held


def check_lock(path: Path) -> None:
    """Refuse something else in the place of a lock file.

    Raises:
        PromptotError: it is a link, a folder or a file with other content.
    """
    content = head_of(path, len(FOLDER_TOO) + 1)
    if kind_of(path) not in ("nothing", "file") or content not in (b"", TEXT, FOLDER_TOO):
        raise PromptotError(
            f"'{path}' was not written by promptot, which needs this name for its lock.",
            fix="Move it away, or choose another folder.",
        )


def append(path: Path, prepare: Callable[[FileIO], bytes]) -> None:
    """Add to the end of a file that several processes add to, and wait until it is on the disk.

    The file is made if there is none. Nothing of what was written stays after an error.

    Args:
        path: the file; a link is followed.
        prepare: called with the file while no other process adds to it; may read it and cut it
            off, and gives what is to be added.

    Raises:
        PromptotError: it is no regular file, or it can't be written.
    """
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, flags | getattr(os, "O_NONBLOCK", 0), 0o666)
        with os.fdopen(handle, "r+b", buffering=0) as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise PromptotError(f"'{path}' is not a file.", fix="Choose another place.")
            if fcntl is not None:  # Windows: one process at a time
                fcntl.flock(handle, fcntl.LOCK_EX)  # until it is closed
            rest = memoryview(prepare(file))
            size = file.seek(0, os.SEEK_END)
            try:
                while rest:
                    rest = rest[file.write(rest) :]
                os.fsync(handle)
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        raise explain(error, path) from error


def _try_lock(handle: int) -> bool:
    try:
        if fcntl is not None:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        else:
            import msvcrt

            os.lseek(handle, 2**20, os.SEEK_SET)  # behind the text, which others may then read
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _is_at(handle: int, path: Path) -> bool:
    """Whether an open file is the one that lies there: its holder may have removed it."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def _make(folder: Path) -> bool:
    """Make a folder; whether there was none."""
    try:
        folder.mkdir(parents=True)
    except FileExistsError:
        # what another process takes away meanwhile, it or a third one may make again
        if not folder.is_dir() and kind_of(folder) not in ("nothing", "folder"):
            raise
        return False
    return True
