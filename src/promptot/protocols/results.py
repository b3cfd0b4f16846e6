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
from promptot.locks import append


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
            lines = self.path.read_bytes().split(b"\n")
        except OSError as error:
            raise PromptotError(
                f"Can't read '{self.path}': {error.strerror}.", fix="Choose another --out."
            ) from error
        found = {}
        for number, line in enumerate(lines[:-1], start=1):  # behind the last line break: torn
            if not line.strip():
                continue
            try:
                record = json.loads(line)
                found[record["cell"]] = record
            except (ValueError, KeyError, TypeError):
                raise PromptotError(
                    f"Line {number} of '{self.path}' is not a result.",
                    fix="Remove that line: its cell will run again.",
                ) from None
        return found

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
            with self._file.path.open("rb") as opened:
                opened.seek(self._offset)
                whole = opened.read().rpartition(b"\n")[0]
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise PromptotError(f"Can't read '{self._file.path}': {error.strerror}.") from error
        self._offset += len(whole) + 1 if whole else 0
        records = [json.loads(line) for line in whole.split(b"\n") if line.strip()]
        return {record["cell"]: record for record in records}


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
