"""Finished cells in a file of JSON lines that survives an interruption at any moment."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError, PromptotWarning
from promptot.files.locks import append
from promptot.files.reading import Unreadable, open_regular, parse_json, read_bytes

LARGEST_FILE = 2**31  # bytes


class ResultFile:
    """One JSON object a line, with the cell's key at "cell"; several processes may append.

    Each line is written whole and flushed to the disk. What an interruption leaves of a line is
    dropped by the next append, and passed over by `read`.

    Args:
        path: the file; it need not exist.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> dict[str, dict[str, Any]]:
        """Cell key -> its line; the last one where there are several.

        Raises:
            PromptotError: the file can't be read, or a line that is not the last is no result.
        """
        if not self.path.exists():
            return {}
        try:
            content = read_bytes(self.path, LARGEST_FILE)
        except Unreadable as error:
            raise PromptotError(
                f"Can't read '{self.path}': {error}.", fix="Choose another --out."
            ) from error
        whole = content.rpartition(b"\n")[0]  # behind the last line break: torn
        return _records(whole, self.path)

    def append(self, record: dict[str, Any]) -> None:
        """Add a line and wait until it is on the disk.

        Raises:
            PromptotError: the file can't be written.
        """
        line = json.dumps(record, ensure_ascii=True, allow_nan=False).encode() + b"\n"

        def prepare(file: FileIO) -> bytes:
            _drop_torn_line(file)
            return line

        append(self.path, prepare)


def warn_of_old_results(records: Mapping[str, Mapping[str, Any]], version: int, path: Path) -> None:
    """Say that a file holds results of an older promptot, which nobody will find under their keys.

    Args:
        records: its lines by their key.
        version: what lines of this promptot have at "version"; 1 where there is none.
        path: the file.

    Warns:
        PromptotWarning: there are such lines.
    """
    old = sum(record.get("version", 1) != version for record in records.values())
    if old:
        results = "1 result is" if old == 1 else f"{old} results are"
        warnings.warn(
            f"{results} left alone in '{path}': another version of promptot wrote them without "
            "noting all that decides them (activation, preprocessing, changed images). They don't "
            "count, and what is missing is computed again.",
            PromptotWarning,
            stacklevel=3,
        )


class NewLines:
    """The results that were added to a file since the last look, by whatever process.

    Args:
        file: the result file.
    """

    def __init__(self, file: ResultFile) -> None:
        self._file = file
        self._offset = 0

    def read(self) -> dict[str, dict[str, Any]]:
        """Cell key -> its line, of the whole lines that are new.

        Raises:
            PromptotError: the file can't be read.
        """
        try:
            if self._file.path.stat().st_size <= self._offset:
                return {}
            with open_regular(self._file.path) as opened:
                opened.seek(self._offset)
                whole = opened.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return {}
        except (OSError, Unreadable) as error:
            reason = getattr(error, "strerror", None) or error
            raise PromptotError(f"Can't read '{self._file.path}': {reason}.") from error
        self._offset += len(whole) + 1 if whole else 0
        return _records(whole, self._file.path)


def _records(whole: bytes, path: Path) -> dict[str, dict[str, Any]]:
    """Cell key -> its line, of whole lines; the last one where there are several.

    Raises:
        PromptotError: a line is no result.
    """
    found = {}
    for number, line in enumerate(whole.split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            record = _check(parse_json(line))
        except Unreadable as error:
            raise PromptotError(
                f"Line {number} of '{path}' is not a result: {error}.",
                fix="Remove that line: its cell will run again.",
            ) from None
        found[record["cell"]] = record
    return found


def _check(record: Any) -> dict[str, Any]:
    """A line as it was written: with a key, and what the figures are made of in its shape.

    Raises:
        Unreadable: it is something else.
    """
    if not isinstance(record, dict) or not isinstance(record.get("cell"), str):
        raise Unreadable("it names no cell")
    if not isinstance(record.get("problem", ""), str):
        raise Unreadable("'problem' is no text")
    if "parts" not in record:
        return record
    parts, training = record["parts"], record.get("training")
    answered = isinstance(parts, dict) and all(
        isinstance(part, dict) and isinstance(part.get("answers"), str) for part in parts.values()
    )
    if not answered:
        raise Unreadable("'parts' holds no answers")
    if not isinstance(training, dict) or not all(map(_is_figure, training.values())):
        raise Unreadable("'training' holds no figures")
    if record.get("seconds") is None or not _is_figure(record["seconds"]):
        raise Unreadable("'seconds' is no number")
    return record


def _is_figure(value: Any) -> bool:
    return value is None or (isinstance(value, int | float) and not isinstance(value, bool))


def _drop_torn_line(file: FileIO) -> None:
    """Cut off what stands behind the last line break, and go there."""
    end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 65536)
        file.seek(start)
        found = file.read(end - start).rfind(b"\n")
        if found >= 0:
            end = start + found + 1
            break
        end = start
    file.seek(end)
    file.truncate()
