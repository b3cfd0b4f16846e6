"""Records in a file of JSON lines that survives an interruption at any moment."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Generic, TypeVar

from pydantic import ValidationError

from promptot.errors import PromptotError, PromptotWarning
from promptot.experiments.cell_record import Record
from promptot.files.locks import append
from promptot.files.reading import Unreadable, open_regular, parse_json

LARGEST_FILE = 2**31  # bytes

R = TypeVar("R", bound=Record)


class RecordFile(Generic[R]):
    """One record a line; several processes may append.

    Each line is written whole and flushed to the disk. What an interruption leaves of a line is
    dropped by the next append, and passed over when reading.

    Args:
        path: the file; it need not exist.
        model: what its lines are.
    """

    def __init__(self, path: Path, model: type[R]) -> None:
        self.path = path
        self._model = model
        self._offset, self._lines = 0, 0  # behind what `read_new` has given

    def read(self) -> dict[str, R]:
        """Key -> its record; the last one where there are several.

        Raises:
            PromptotError: the file can't be read, or a line that is not the last is no record.
        """
        return RecordFile(self.path, self._model).read_new()

    def read_new(self) -> dict[str, R]:
        """Key -> its record, of the whole lines that were added since the last call, by whatever
        process.

        Raises:
            PromptotError: as `read`.
        """
        try:
            with open_regular(self.path) as opened:
                size = os.fstat(opened.fileno()).st_size - self._offset
                if size <= 0:
                    return {}
                if size > LARGEST_FILE:
                    raise Unreadable("it is too large")
                opened.seek(self._offset)
                whole = opened.read(size).rpartition(b"\n")[0]  # behind the last line break: torn
        except (OSError, Unreadable) as error:
            if isinstance(error, Unreadable) and error.missing:
                return {}
            reason = getattr(error, "strerror", None) or error
            raise PromptotError(
                f"Can't read '{self.path}': {reason}.", fix="Choose another --out."
            ) from error
        records = self._records(whole)
        if whole:
            self._offset += len(whole) + 1
            self._lines += whole.count(b"\n") + 1
        return records

    def append(self, record: R) -> None:
        """Add a line of what was set in a record, and wait until it is on the disk.

        Raises:
            PromptotError: the file can't be written.
        """
        values = record.model_dump(exclude_unset=True)
        line = json.dumps(values, ensure_ascii=True, allow_nan=False).encode() + b"\n"

        def prepare(file: FileIO) -> bytes:
            _drop_torn_line(file)
            return line

        append(self.path, prepare)

    def warn_of_old(self, records: Mapping[str, R], version: int) -> None:
        """Say that there are results of an older promptot, which nobody finds under their keys.

        Args:
            records: what the file holds.
            version: of this promptot's records.

        Warns:
            PromptotWarning: there are such lines.
        """
        old = sum(record.version != version for record in records.values())
        if old:
            results = "1 result is" if old == 1 else f"{old} results are"
            warnings.warn(
                f"{results} left alone in '{self.path}': another version of promptot wrote them "
                "without noting all that decides them (activation, preprocessing, changed images). "
                "They don't count, and what is missing is computed again.",
                PromptotWarning,
                stacklevel=3,
            )

    def _records(self, whole: bytes) -> dict[str, R]:
        """Key -> its record, of whole lines."""
        records = {}
        for number, line in enumerate(whole.split(b"\n"), start=self._lines + 1):
            if not line.strip():
                continue
            try:
                record = self._model.model_validate(parse_json(line))
            except (Unreadable, ValidationError) as error:
                raise PromptotError(
                    f"Line {number} of '{self.path}' is not a result: {_reason(error)}.",
                    fix="Remove that line: its cell will run again.",
                ) from None
            records[record.cell] = record
        return records


def _reason(error: Unreadable | ValidationError) -> str:
    if isinstance(error, Unreadable):
        return error.reason
    first = error.errors(include_url=False, include_input=False)[0]
    place = ".".join(map(str, first["loc"]))
    return f"'{place}': {first['msg']}" if place else first["msg"].removeprefix("Value error, ")


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
