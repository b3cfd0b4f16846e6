"""Class names and caption templates: cleaning and checking."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable
from decimal import Decimal
from typing import Literal

from promptot.errors import PromptotError

DEFAULT_TEMPLATE = "a photo of a {}."
TemplateMean = Literal["normalised", "raw"]
"""What the mean over several templates is taken of: L2-normalised features, or the text tower's own
output. The mean is normalised either way."""
_NUMBER = re.compile(r"[+-]?\d{1,100}(\.\d{1,100})?")


def clean_name(text: str) -> str:
    """A folder name as a class name: underscores become spaces, spare blanks go.

    Example:
        >>> clean_name("golden_retriever ")
        'golden retriever'
    """
    return " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())


def is_name(text: str) -> bool:
    """Whether a text has something to read: a letter, a digit, a sign, a picture.

    Blanks, controls and characters without a width are nothing.

    Example:
        >>> is_name("cat"), is_name("🐼"), is_name(" \\t"), is_name("\\u200b")
        (True, True, False, False)
    """
    return any(unicodedata.category(character)[0] not in "ZCM" for character in text)


def same_name(text: str) -> str:
    """What two class names share that CLIP reads alike, or that nobody could tell apart.

    Case, underscores and blanks don't count, nor do forms of one character (Unicode NFKC).

    Example:
        >>> same_name("Hot_Dog") == same_name("hot  dog"), same_name("ｃａｔ") == same_name("CAT")
        (True, True)
    """
    return clean_name(unicodedata.normalize("NFKC", text)).casefold()


def in_order(class_names: Collection[str]) -> list[str]:
    """Class names in the order of their labels: numbers by their size, others by the alphabet.

    It does not depend on how a data set is stored, so neither does what is base and what is novel.
    Names count as numbers where all of them are.

    Args:
        class_names: cleaned (see `clean_name`).

    Example:
        >>> in_order(["10", "9", "1"]), in_order(["10", "9", "x"])
        (['1', '9', '10'], ['10', '9', 'x'])
    """
    if all(_NUMBER.fullmatch(name) for name in class_names):
        return sorted(class_names, key=lambda name: (Decimal(name), name))
    return sorted(class_names)


def check_class_names(
    class_names: Iterable[str],
    *,
    same: bool = False,
    fix: str = "Merge the two classes or rename one.",
) -> None:
    """Check that there are class names, none empty and no two alike (see `same_name`).

    Args:
        same: whether two may be alike all the same.
        fix: what to do about two that are alike and may not be.

    Raises:
        PromptotError: there are none, one is empty, is not valid text, or comes twice.
    """
    seen: dict[str, str] = {}
    for name in class_names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise PromptotError(
                f"The class name {name!a:.80} is not valid text.", fix="Rename the folder."
            ) from None
        if not is_name(name):
            problem = "is empty" if not name.strip() else f"({name!a:.80}) shows nothing"
            raise PromptotError(f"A class name {problem}.", fix="Give every class a name.")
        key = same_name(name)
        if key in seen and not same:
            other = "" if seen[key] == name else f", first as '{seen[key]:.60}'"
            raise PromptotError(
                f"The class name '{name:.60}' comes twice{other} (case, underscores and forms of "
                "one character are ignored).",
                fix=fix,
            )
        seen[key] = name
    if not seen:
        raise PromptotError("There are no class names.", fix="Give at least one.")


def check_task_names(class_names: Iterable[str], *, keep: bool = False) -> None:
    """`check_class_names` of a task, whose classes may be called alike on purpose.

    Args:
        keep: whether they may.

    Raises:
        PromptotError: as there, with the option that keeps both.
    """
    check_class_names(
        class_names,
        same=keep,
        fix="Merge the two classes or rename one; or, if they are called alike on purpose, as two "
        "pairs in ImageNet are, keep both with --keep-same-names (keep_same_names=True, or "
        "`keep_same_names: true` in a description).",
    )


def check_template(template: str) -> None:
    """Check that a caption template holds one place for the class name.

    Raises:
        PromptotError: it has no `{}`, more than one, or other braces.

    Example:
        >>> check_template("a photo of a {}.")
    """
    try:
        template.encode()
    except UnicodeEncodeError:
        raise PromptotError(
            f"The template {template!a:.80} is not valid text.", fix="Write it in UTF-8."
        ) from None
    rest = template.replace("{}", "")
    if template.count("{}") != 1 or "{" in rest or "}" in rest:
        raise PromptotError(
            f"The template '{template:.200}' must hold '{{}}' exactly once, where the class name "
            "goes.",
            fix="For example 'a photo of a {}.'.",
        )
