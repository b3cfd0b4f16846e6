"""Anchor words: names of things that are no class of the task, read from a file."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from promptot.data.class_names import check_class_names, clean_name
from promptot.errors import PromptotError
from promptot.files.reading import MIB, read_text, reading_errors, text_lines

EVERYDAY_WORDS = Path(__file__).parents[1] / "assets" / "vocabulary.txt"
"""About a thousand nouns for things that can be seen, one a line."""
LARGEST_FILE = 64 * MIB


def load_vocabulary(path: str | Path | None = None, exclude: Iterable[str] = ()) -> tuple[str, ...]:
    """The words of a text file, one a line; blank lines are skipped.

    Args:
        path: of a UTF-8 text file; None means the list that ships.
        exclude: words to leave out, in any case: names of classes, which need no anchor, or of
            classes whose names a fair test of new classes must not have seen.

    Raises:
        PromptotError: the file can't be read, holds no word, or holds one twice.

    Example:
        >>> words = load_vocabulary()
        >>> "apple" in words, "apple" in load_vocabulary(exclude=["Apple"])
        (True, False)
    """
    path = EVERYDAY_WORDS if path is None else Path(path)
    fix = "Give a UTF-8 text file with one word a line."
    with reading_errors(f"The anchor words can't be read from '{path}'", fix):
        text = read_text(path, LARGEST_FILE)
    words = [clean_name(line) for line in text_lines(text) if line.strip()]
    try:
        check_class_names(words)
    except PromptotError as error:
        raise PromptotError(
            f"The anchor words in '{path}': {error.problem}",
            fix="Give a text file with one word a line, each once.",
        ) from error
    left_out = {clean_name(name).casefold() for name in exclude}
    return tuple(word for word in words if word.casefold() not in left_out)
