"""CSV for people: no cell is a formula to a spreadsheet, none holds what a terminal would obey.

Two rules, for every text (names, paths) and no number; `read_cell` undoes both, whatever the text:

- A cell that begins with ``=``, ``+``, ``-`` or ``@``, in any width and also behind blanks or what
  shows nothing, gets an apostrophe before it; so does one that begins with apostrophes and then
  with such a sign.
- Control characters (tab and line ends too), marks that turn the writing direction around, line
  and paragraph separators and lone surrogates are written as ``\\x1b`` or ``\\u202e``. The
  backslash of a text that looks like that already is written as ``\\x5c``.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterable

SIGNS = "=+-@"
OBEYED = "\x00-\x1f\x7f-\x9f\u061c\u2028-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff"
"""For a regular expression: what a terminal obeys, a reader is misled by, or UTF-8 has not."""
_WRITTEN = re.compile(rf"[{OBEYED}]|\\(?=x[0-9a-f]{{2}}|u[0-9a-f]{{4}})")
_READ = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")


class Number(str):
    """A number as text, for a cell that is written as it is."""

    __slots__ = ()


def write_cell(text: str) -> str:
    """A text as a cell, by the two rules above.

    Example:
        >>> write_cell("=HYPERLINK(1)"), write_cell("red \\x1b[31m panda"), write_cell("cat")
        ("'=HYPERLINK(1)", 'red \\\\x1b[31m panda', 'cat')
    """
    escaped = _WRITTEN.sub(_escape, text)
    return f"'{escaped}" if is_formula(text) else escaped


def read_cell(cell: str) -> str:
    """The text that `write_cell` wrote.

    Example:
        >>> read_cell("'=HYPERLINK(1)"), read_cell("'tis"), read_cell("red \\\\x1b[31m panda")
        ('=HYPERLINK(1)', "'tis", 'red \\x1b[31m panda')
    """
    text = _READ.sub(lambda found: chr(int(found[1] or found[2], 16)), cell)
    return text[1:] if text.startswith("'") and is_formula(text) else text


def is_formula(text: str) -> bool:
    """Whether a spreadsheet might take a cell for a formula, apostrophes before it left aside.

    Example:
        >>> is_formula(" ＝1"), is_formula("'=1"), is_formula("\\t1"), is_formula("1-2")
        (True, True, True, False)
    """
    text = text.lstrip("'")
    if text.startswith(("\t", "\r", "\n")):
        return True
    for character in text:
        if unicodedata.category(character)[0] in "ZC":
            continue
        return unicodedata.normalize("NFKC", character)[0] in SIGNS
    return False


def csv_line(cells: Iterable[str | int | None]) -> str:
    """One line of a CSV file: texts by the rules above, numbers and `Number` as they are.

    Example:
        >>> csv_line(["-cat", Number("-0.5"), 3, None])
        "'-cat,-0.5,3,\\n"
    """
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(
        write_cell(cell) if isinstance(cell, str) and not isinstance(cell, Number) else cell
        for cell in cells
    )
    return line.getvalue()


def _escape(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"
