"""The one exception a user of promptot has to know, and the one warning."""

from __future__ import annotations

import difflib
import shlex
import warnings
from collections.abc import Collection, Iterable
from typing import Any


class PromptotError(Exception):
    """Something the user can put right: what is wrong, and what to do about it.

    Args:
        problem: one sentence that says what is wrong.
        fix: one sentence that says what to do.

    Example:
        >>> print(PromptotError("No folder 'birds'.", fix="Check the path."))
        No folder 'birds'. Check the path.
    """

    def __init__(self, problem: str, *, fix: str | None = None) -> None:
        super().__init__(problem if fix is None else f"{problem} {fix}")
        self.problem = problem
        self.fix = fix


class CannotWrite(PromptotError):  # noqa: N818 - what it is, not how it ends
    """A file can't be written: the disk is full, say. What comes next can't be written either."""


class NotFinite(PromptotError):  # noqa: N818 - what it is, not how it ends
    """NaN or an infinite number where training or transport needs finite ones."""


class UnaskedBackbone(PromptotError):  # noqa: N818 - what it is, not how it ends
    """An adapter's card names a backbone that this user has not asked for: `name`."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The adapter's card names the backbone '{name}', which would be downloaded or read "
            "from a local place, and which you have not loaded on this machine before.",
            fix=f"If you trust it, name it yourself: --backbone {shlex.quote(name)} "
            f"(in Python backbone={name!r}).",
        )
        self.name = name

    def __reduce__(self) -> tuple[type[UnaskedBackbone], tuple[str]]:
        return type(self), (self.name,)


class PromptotWarning(UserWarning):
    """Something that goes on, but that the user should know of and may have to put right."""


def listed(
    texts: Collection[str],
    most: int,
    *,
    width: int | None = None,
    quoted: bool = True,
    counted: bool = True,
) -> str:
    """The first of some texts, for a sentence, and that there are more.

    Args:
        most: how many are shown.
        width: characters of each that are shown; None shows all.
        quoted: whether each stands in quotes.
        counted: whether it says how many more there are.

    Example:
        >>> listed(["cat", "dog", "fox"], 2), listed(["cat", "dog", "fox"], 2, counted=False)
        ("'cat', 'dog' and 1 more", "'cat', 'dog', …")
    """
    cut = [text[:width] for text in list(texts)[:most]]
    shown = ", ".join(f"'{text}'" if quoted else text for text in cut)
    if len(texts) <= most:
        return shown
    return f"{shown} and {len(texts) - most} more" if counted else f"{shown}, …"


def nearest(word: str, choices: Iterable[str]) -> str:
    """A sentence that points from a mistyped word to what was probably meant.

    Example:
        >>> nearest("promt-ot", ["prompt-ot", "ivlp"])
        "Did you mean 'prompt-ot'? Valid: ivlp, prompt-ot."
        >>> nearest("xyz", ["prompt-ot", "ivlp"])
        'Valid: ivlp, prompt-ot.'
    """
    known = sorted(choices)
    valid = f"Valid: {', '.join(known)}."
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"Did you mean '{close[0]}'? {valid}" if close else valid


def warn_of_former_name(former: str, name: str, stacklevel: int = 3) -> None:
    """Say what something is called now.

    Warns:
        DeprecationWarning: always.
    """
    message = f"'{former}' is called '{name}' now."
    warnings.warn(message, DeprecationWarning, stacklevel=stacklevel)


def use_class_names(class_names: Any, names: Any, stacklevel: int = 4) -> Any:
    """`class_names`, or what was given by their former name."""
    if names is None:
        return class_names
    warn_of_former_name("names", "class_names", stacklevel)
    return names
