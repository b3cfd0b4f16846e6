"""Folders for the results of `tune`, `benchmark` and `demo`, which replace their own files only."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError
from promptot.files.owned import head_of, kind_of
from promptot.files.reading import Unreadable, parse_json
from promptot.files.writing import output_folder
from promptot.runs.run_folder import holds_run

LONGEST_LINE = 2**26  # bytes


def check_result_folder(
    out: Path, names: Collection[str], record: str, keys: Collection[str], what: str
) -> None:
    """Refuse a folder where a file of other origin would be replaced. Nothing is touched.

    Args:
        out: the folder.
        names: of the files that will be written.
        record: the file among them that is written first, and says that the others are ours.
        keys: what its first line, or it as a whole, has as a JSON object; it may be empty.
        what: writes them, such as "tuning".

    Raises:
        PromptotError: it holds a run, or one of the names is taken.
    """
    output_folder(out)
    if holds_run(out):
        raise PromptotError(
            f"'{out}' holds a run, whose report would be replaced.",
            fix=f"Choose a folder of its own for the {what}.",
        )
    taken = [name for name in names if kind_of(out / name) != "nothing"]
    if (
        taken == [record]
        and record.endswith(".jsonl")
        and b"\n" in head_of(out / record, LONGEST_LINE)
    ):
        return  # whoever reads its lines says which of them is none
    if taken and not _is_record(out / record, keys):
        raise PromptotError(
            f"'{out / taken[0]}' is there already, and no {what} wrote it.",
            fix=f"Choose a folder of its own for the {what}.",
        )


def _is_record(path: Path, keys: Collection[str]) -> bool:
    if kind_of(path) == "link":
        path = path.resolve()
    text = head_of(path, LONGEST_LINE)
    if not text.strip():
        return kind_of(path) == "file"
    for part in (text.partition(b"\n")[0], text):
        try:
            found: Any = parse_json(part)
        except Unreadable:
            continue
        if isinstance(found, dict) and set(keys) <= found.keys():
            return True
    return b"\n" not in text and text.startswith(b'{"cell"')  # cut off within its first line
