"""Mistakes that people flag on the page, as a CSV file that a spreadsheet can open safely."""

from __future__ import annotations

import datetime
import threading
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from promptot.csv_text import Number, csv_line, write_cell
from promptot.errors import PromptotError
from promptot.files import write_text

LARGEST = 16 * 2**20  # bytes of the file

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
    """A CSV file of flags, a row each; every addition leaves it whole.

    Args:
        path: the file; it is made when the first flag comes.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()

    def add(self, flag: Flag) -> int:
        """Append a flag; gives how many the file holds.

        Raises:
            PromptotError: the file is full or can't be written to.
        """
        row = (
            datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            harmless(flag.image), flag.sha256, harmless(flag.right),
            harmless(flag.frozen.name), f"{flag.frozen.probability:.4f}",
            harmless(flag.adapted.name), f"{flag.adapted.probability:.4f}",
            f"{flag.strength:.2f}",
            harmless(flag.between.name), f"{flag.between.probability:.4f}",
        )  # fmt: skip
        with self._lock:
            text = self._read() or _line(COLUMNS)
            if len(text) > LARGEST:
                raise PromptotError(
                    f"'{self.path.name}' is full.", fix="Move it away; a new one will be started."
                )
            write_text(self.path, text + _line(row))
            return text.count("\n")

    def _read(self) -> str:
        try:
            text = self.path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""
        return text if text.endswith("\n") or not text else f"{text}\n"


def harmless(text: str) -> str:
    """Text for a cell: on one line, printable, and never taken for a formula.

    Example:
        >>> harmless("=HYPERLINK(1)"), harmless("two\\nlines"), harmless("plain")
        ("'=HYPERLINK(1)", 'two lines', 'plain')
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    return write_cell(line)


def _line(row: tuple[str, ...]) -> str:
    return csv_line(map(Number, row))  # the texts among them are `harmless` already
