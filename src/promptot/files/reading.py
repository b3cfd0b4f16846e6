"""Reading files that somebody else may have written: bounded in size, depth and time.

Every file that a user hands over goes through here. A pipe or a device is refused unopened, so that
nothing waits or never ends; a file is read up to a bound; what is nested, repeated or written so
that it grows when it is read is refused. All of it is said as `Unreadable`, whose text is the
reason in a few words, for the caller to put into its own sentence.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import re
import reprlib
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from promptot.errors import PromptotError

MIB = 2**20
LARGEST_TEXT = 512 * MIB
"""Bytes of a text or JSON file, unless its kind has a bound of its own."""
DEEPEST = 100
"""Levels of lists and mappings in each other."""
LONGEST_NUMBER = 400
"""Characters of a number; the largest one that a float can hold has 309 digits."""
LONGEST_CELL = 16 * MIB
"""Characters of a cell of a CSV file."""

PathLike = str | os.PathLike[str]

_MARKS = (
    (b"\xff\xfe\0\0", "utf-32"),
    (b"\0\0\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"),
    (b"\xfe\xff", "utf-16"),
)
_SAMPLE = 2**16
_BEYOND_ASCII = re.compile(rb"[\x80-\xff]+")
_LONE_SURROGATE = re.compile("[\ud800-\udc7f\udd00-\udfff]")
"""Half a character; the halves left out here stand for the bytes of file names that are no text."""
_ESCAPED_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")


class Unreadable(ValueError):  # noqa: N818 - what it is, not how it ends
    """A file, or a text, that can't be read.

    Args:
        reason: why, to stand behind a colon: "it is larger than 8 MiB".
        missing: there is no such file.
    """

    def __init__(self, reason: str, *, missing: bool = False) -> None:
        super().__init__(reason)
        self.reason = reason
        self.missing = missing


@contextlib.contextmanager
def reading_errors(problem: str, fix: str) -> Iterator[None]:
    """Say of what turns out to be unreadable that it is a user's file, and what to do about it.

    Args:
        problem: what can't be done; the reason follows it behind a colon.
        fix: what to do.

    Raises:
        PromptotError: instead of `Unreadable`.
    """
    try:
        yield
    except Unreadable as error:
        raise PromptotError(f"{problem}: {error}.", fix=fix) from error


def open_regular(path: PathLike) -> io.BufferedReader:
    """Open a regular file for reading bytes. It never waits: pipes and devices are not opened.

    Raises:
        Unreadable: there is no such file, it is none, or the system refuses.
    """
    try:
        check_regular(Path(path).stat().st_mode)
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        file = os.fdopen(os.open(path, flags | getattr(os, "O_CLOEXEC", 0)), "rb")
    except OSError as error:
        missing = isinstance(error, FileNotFoundError)
        raise Unreadable(_of_the_system(error), missing=missing) from error
    except Unreadable:
        raise
    except ValueError as error:  # a null byte, or half a character, in the name
        raise Unreadable("no file can have this name", missing=True) from error
    try:
        check_regular(os.fstat(file.fileno()).st_mode)  # another one may have taken its place
    except Unreadable:
        file.close()
        raise
    return file


def read_bytes(path: PathLike, largest: int = LARGEST_TEXT) -> bytes:
    """The bytes of a regular file.

    Args:
        largest: how many there may be.

    Raises:
        Unreadable: as `open_regular`, or there are more.
    """
    with open_regular(path) as file:
        try:
            if os.fstat(file.fileno()).st_size > largest:
                raise Unreadable(_larger_than(largest))
            content = file.read(largest + 1)  # what the system says of some files' size is wrong
        except OSError as error:
            raise Unreadable(_of_the_system(error)) from error
        except MemoryError as error:
            raise Unreadable("it does not fit into memory") from error
    if len(content) > largest:
        raise Unreadable(_larger_than(largest))
    return content


def read_text(path: PathLike, largest: int = LARGEST_TEXT) -> str:
    """The text of a regular file, see `decode`.

    Raises:
        Unreadable: as `read_bytes` and `decode`.
    """
    return decode(read_bytes(path, largest))


def decode(content: bytes) -> str:
    """Bytes as text: UTF-8 with or without a byte order mark, or UTF-16 or UTF-32 with one.

    Raises:
        Unreadable: they are something else; with the encoding that they are likely in.

    Example:
        >>> decode("Füchse".encode("utf-16"))
        'Füchse'
        >>> decode("Füchse".encode("latin-1"))
        Traceback (most recent call last):
        promptot.files.reading.Unreadable: it is not UTF-8 text (line 1, byte 0xfc), but likely \
Windows-1252 (Latin 1)
    """
    marked = next((name for mark, name in _MARKS if content.startswith(mark)), None)
    if marked is not None:
        try:
            return content.decode(marked)
        except UnicodeDecodeError:
            raise Unreadable(f"it is not {marked.upper()} text, as its first bytes say") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        likely = likely_encoding(content)
        raise Unreadable(
            f"it is not UTF-8 text (line {line}, byte 0x{content[error.start]:02x})"
            + (f", but likely {likely}" if likely else "")
        ) from None


def likely_encoding(content: bytes) -> str | None:
    """What bytes that are no UTF-8 are likely text in, to say to people; None if they are no text.

    A guess by how bytes beyond ASCII stand together: single ones among letters in the languages of
    western Europe, words of them in Cyrillic, pairs in East Asia.

    Example:
        >>> likely_encoding("Hündchen".encode("latin-1"))
        'Windows-1252 (Latin 1)'
        >>> likely_encoding("собака, кошка".encode("cp1251"))
        'Windows-1251 (Cyrillic)'
    """
    sample = content[:_SAMPLE]
    nulls = sample.count(0)
    if nulls:
        even = sample[::2].count(0)
        paired = max(even, nulls - even) > 0.9 * nulls and nulls > len(sample) / 8
        return "UTF-16 without its byte order mark" if paired else None
    if any(byte < 32 and byte not in b"\t\n\r\f\x1a" for byte in sample):
        return None
    runs = [len(found[0]) for found in _BEYOND_ASCII.finditer(sample)]
    if not runs:
        return None
    if max(runs) < 4 and sum(run == 1 for run in runs) > len(runs) / 2:
        return "Windows-1252 (Latin 1)"
    beyond = [byte for byte in sample if byte >= 128]
    if sum(byte >= 0xC0 or byte in (0xA8, 0xB8) for byte in beyond) > 0.95 * len(beyond):
        return "Windows-1251 (Cyrillic)"
    return "an East Asian encoding, such as GBK, Big5, Shift JIS or EUC"


def text_lines(text: str) -> list[str]:
    """Lines as editors count them; unlike `splitlines`, only line breaks end one."""
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    return lines[:-1] if lines[-1] == "" else lines


def read_json(path: PathLike, largest: int = LARGEST_TEXT) -> Any:
    """The value in a JSON file, see `parse_json`.

    Raises:
        Unreadable: as `read_text` and `parse_json`.
    """
    return parse_json(read_text(path, largest))


def parse_json(text: str | bytes, *, allow_nan: bool = False) -> Any:
    """A JSON value; of a bounded depth, with numbers of a bounded length, and each key once.

    Args:
        allow_nan: take NaN and infinities, which are no JSON, as some programs write them.

    Raises:
        Unreadable: it is something else.

    Example:
        >>> parse_json('{"a": [1, 2]}')
        {'a': [1, 2]}
        >>> parse_json('{"a": 1, "a": 2}')
        Traceback (most recent call last):
        promptot.files.reading.Unreadable: the key 'a' comes twice
    """
    if isinstance(text, bytes):
        text = decode(text)
    try:
        value = json.loads(
            text,
            parse_int=_whole_number,
            parse_float=_number if allow_nan else _finite_number,
            parse_constant=None if allow_nan else _no_number,
            object_pairs_hook=_each_key_once,
        )
    except json.JSONDecodeError as error:
        raise Unreadable(
            f"it is no JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        ) from None
    except RecursionError:
        raise Unreadable(too_deep()) from None
    check_depth(value)
    if _ESCAPED_SURROGATE.search(text):
        check_characters(value)
    return value


def check_depth(value: Any, deepest: int = DEEPEST) -> None:
    """Check that lists and mappings are not nested deeper than that.

    Raises:
        Unreadable: they are.
    """
    level = [value]
    for _ in range(deepest + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, (dict, list))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
            if isinstance(inner, (dict, list))
        ]
        if not level:
            return
    raise Unreadable(too_deep())


def read_csv(text: str, delimiter: str = ",") -> Iterator[list[str]]:
    """The rows of a CSV text, empty ones left out.

    Raises:
        Unreadable: a row is damaged, or a cell far too long; with the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    while True:
        before = csv.field_size_limit(LONGEST_CELL)  # of the process, not of a reader
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise Unreadable(f"line {reader.line_num} is damaged ({error})") from None
        finally:
            csv.field_size_limit(before)
        if row is None:
            return
        if row:
            yield row


def brief(value: object, most: int = 80) -> str:
    """What a value looks like, in few characters, however large it is.

    Example:
        >>> brief([0] * 1_000_000), brief("x" * 100, 20)
        ('[0, 0, 0, 0, 0, 0, ...]', "'xxxxxx...xxxxxx'")
    """
    shown = reprlib.Repr()
    shown.maxstring = shown.maxother = most - 2 if most > 40 else most - 3
    shown.maxlevel = 3
    try:
        text = shown.repr(value)
    except ValueError:  # a number with more digits than Python writes
        text = "a very long number"
    return text if len(text) <= most else f"{text[: most - 3]}..."


def check_regular(mode: int) -> None:
    """Refuse folders, pipes and devices, by the mode of a `stat`.

    Raises:
        Unreadable: it is one.
    """
    if stat.S_ISDIR(mode):
        raise Unreadable("it is a folder, not a file")
    if not stat.S_ISREG(mode):
        raise Unreadable("it is a pipe or a device, not a file; save what it gives to a file first")


def _of_the_system(error: OSError) -> str:
    return error.strerror or str(error)


def _larger_than(largest: int) -> str:
    size = f"{largest // MIB} MiB" if largest >= MIB else f"{largest} bytes"
    return f"it is larger than {size}, far too large"


def too_deep() -> str:
    """Why something is `Unreadable` that is nested deeper than `DEEPEST`."""
    return f"it is nested deeper than {DEEPEST} levels"


def _short(number: str) -> str:
    if len(number) > LONGEST_NUMBER:
        raise Unreadable(f"it holds a number of {len(number)} characters")
    return number


def _whole_number(text: str) -> int:
    return int(_short(text))


def _number(text: str) -> float:
    return float(_short(text))


def _finite_number(text: str) -> float:
    value = _number(text)
    if value in (float("inf"), float("-inf")):
        raise Unreadable(f"the number {text} is too large")
    return value


def _no_number(text: str) -> float:
    raise Unreadable(f"it holds {text}, which is no number of JSON")


def _each_key_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Unreadable(f"the key {brief(key)} comes twice")
            seen.add(key)
    return found


def check_characters(value: Any) -> None:
    """Refuse half characters, which can be written nowhere; `value` has been checked for depth."""
    if isinstance(value, str):
        if _LONE_SURROGATE.search(value):
            raise Unreadable("it holds half a character (a lone surrogate)")
    elif isinstance(value, dict):
        for key, inner in value.items():
            check_characters(key)
            check_characters(inner)
    elif isinstance(value, list):
        for inner in value:
            check_characters(inner)
