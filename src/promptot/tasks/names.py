"""Class names and caption templates: cleaning and checking."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable

from promptot.errors import PromptotError

DEFAULT_TEMPLATE = "a photo of a {}."


def clean_name(text: str) -> str:
    """A folder name as a class name: underscores become spaces, spare blanks go.

    Example:
        >>> clean_name("golden_retriever ")
        'golden retriever'
    """
    return " ".join(unicodedata.normalize("NFC", text).replace("_", " ").split())


def check_class_names(class_names: Iterable[str]) -> None:
    """Check that there are class names, none empty and no two alike.

    CLIP's tokenizers ignore case, so names that differ only in case count as alike.

    Raises:
        PromptotError: there are none, one is empty, is not valid text, or comes twice.
    """
    seen: set[str] = set()
    for name in class_names:
        if not name.strip():
            raise PromptotError("A class name is empty.", fix="Give every class a name.")
        try:
            name.encode()
        except UnicodeEncodeError:
            raise PromptotError(
                f"The class name {name!a} is not valid text.", fix="Rename the folder."
            ) from None
        if name.casefold() in seen:
            raise PromptotError(
                f"The class name '{name}' comes twice (case is ignored).",
                fix="Merge the two classes or rename one.",
            )
        seen.add(name.casefold())
    if not seen:
        raise PromptotError("There are no class names.", fix="Give at least one.")


def check_template(template: str) -> None:
    """Check that a caption template holds one place for the class name.

    Raises:
        PromptotError: it has no `{}`, more than one, or other braces.

    Example:
        >>> check_template("a photo of a {}.")
    """
    rest = template.replace("{}", "")
    if template.count("{}") != 1 or "{" in rest or "}" in rest:
        raise PromptotError(
            f"The template '{template}' must hold '{{}}' exactly once, where the class name goes.",
            fix="For example 'a photo of a {}.'.",
        )
