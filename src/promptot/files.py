"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a temporary path beside `path` to write to; move it into place on success.

    The move is atomic: a crash, an exception or a full disk leaves whatever stood at `path`
    before, and no half-written file.

    Raises:
        PromptotError: the disk is full, or the folder can't be written to.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=".partial-", suffix=target.suffix)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(target)
        temporary = None
    except OSError as error:
        raise explain(error, target) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write `text` (UTF-8, as it is) to `path`, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="")


def write_bytes(path: str | os.PathLike[str], content: bytes) -> None:
    """Write `content` to `path`, atomically."""
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write `value` as indented JSON to `path`, atomically; NaN is refused."""
    text = json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False)
    try:
        text.encode()
    except UnicodeEncodeError:  # a file name of bytes that are no text; JSON can escape those
        text = json.dumps(value, indent=2, allow_nan=False)
    write_text(path, f"{text}\n")


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def explain(error: OSError, target: Path) -> PromptotError:
    """What an `OSError` while writing `target` means, and what to do about it."""
    if error.errno in (errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)):
        return PromptotError(
            f"No space left on the disk while writing '{target}'.",
            fix="Free some space or choose another folder; what was there before is intact.",
        )
    return PromptotError(
        f"Can't write '{target}': {error.strerror or error}.",
        fix="Choose a folder you may write to.",
    )


def replace_folder(staging: Path, target: Path) -> None:
    """Put a finished folder in the place of what was there, which goes only when it has its place.

    Raises:
        OSError: as the system says.
    """
    if not target.exists():
        staging.replace(target)
        return
    old = target.with_name(f".old-{target.name}")
    shutil.rmtree(old, ignore_errors=True)
    target.replace(old)
    staging.replace(target)
    shutil.rmtree(old, ignore_errors=True)
