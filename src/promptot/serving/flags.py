"""Mistakes that people flag on the page, as a CSV file that a spreadsheet can open safely."""

from __future__ import annotations

import datetime
from io import FileIO
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from promptot.errors import PromptotError
from promptot.files.csv_text import Number, csv_line, write_cell
from promptot.files.locks import append
from promptot.files.owned import head_of

LARGEST = 16 * 2**20

Text = Annotated[str, Field(max_length=300)]
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class Answer(BaseModel):
    """A model's likeliest name."""

    model_config = ConfigDict(extra="forbid")

    name: Text
    probability: Share


class Flag(BaseModel):
    """What the page sends: an image, three answers, and what would be right, if that was said."""

    model_config = ConfigDict(extra="forbid")

    image: Text
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    right: Text = ""
    strength: Share
    frozen: Answer
    adapted: Answer
    between: Answer


COLUMNS = (
    "time", "image", "sha256", "right", "frozen", "frozen_probability", "adapted",
    "adapted_probability", "lambda", "between", "between_probability",
)  # fmt: skip


class FlagFile:
    """A CSV file of flags, a row each; several processes may add to it.

    Args:
        path: the file; it is made when the first flag comes.
        largest: bytes that it may have before it is full.
    """

    def __init__(self, path: Path, largest: int = LARGEST) -> None:
        self.path = path
        self._largest = largest

    def add(self, flag: Flag) -> int:
        """Append a flag; gives how many the file holds.

        Raises:
            PromptotError: the file is full, is none of flags, or can't be written to.
        """
        row = (
            datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            harmless(flag.image), flag.sha256, harmless(flag.right),
            harmless(flag.frozen.name), f"{flag.frozen.probability:.4f}",
            harmless(flag.adapted.name), f"{flag.adapted.probability:.4f}",
            f"{flag.strength:.2f}",
            harmless(flag.between.name), f"{flag.between.probability:.4f}",
        )  # fmt: skip
        count = 0

        def prepare(file: FileIO) -> bytes:
            nonlocal count
            text = file.read()
            self._check(text[: len(HEADER)])
            if len(text) > self._largest:
                raise PromptotError(
                    f"'{self.path.name}' is full.", fix="Move it away; a new one will be started."
                )
            start = b"" if text.endswith(b"\n") else b"\n" if text else HEADER
            count = (text + start).count(b"\n")
            return start + _line(row)

        append(self.path, prepare)
        return count

    def check(self) -> None:
        """Refuse a file that is none of flags. Nothing is touched.

        Raises:
            PromptotError: something else lies there.
        """
        if self.path.exists():
            if not self.path.is_file():
                what = "a folder" if self.path.is_dir() else "not a file"
                raise PromptotError(f"'{self.path}' is {what}.", fix="Give a file for the flags.")
            self._check(head_of(self.path.resolve(), len(HEADER)))

    def _check(self, head: bytes) -> None:
        if head not in (b"", HEADER):
            raise PromptotError(
                f"'{self.path.name}' is not a file of flags as promptot writes it.",
                fix="Move it away, or choose another --flags.",
            )


def harmless(text: str) -> str:
    """Text for a cell: on one line, printable, and never taken for a formula.

    Example:
        >>> harmless("=HYPERLINK(1)"), harmless("two\\nlines"), harmless("plain")
        ("'=HYPERLINK(1)", 'two lines', 'plain')
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    return write_cell(line)


def _line(row: tuple[str, ...]) -> bytes:
    return csv_line(map(Number, row)).encode()  # the texts among them are `harmless` already


HEADER = _line(COLUMNS)
