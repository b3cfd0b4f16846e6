"""Class names that a text model can make little of."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from promptot.errors import listed

_CODE = re.compile(r"(class|label|category|id|type|item|group|folder)?[ .-]*[a-z]{0,2}\d+", re.I)
_NUMBERED = re.compile(r"\d+[ ._-]+(?=\D)")
_CAMEL = re.compile(r"[a-z][A-Z]")
_EMPTY_WORDS = {"new folder", "untitled", "misc", "miscellaneous", "other", "others", "unknown"}
_EMPTY_WORDS |= {"rest", "none", "background", "unsorted", "various", "negative", "positive"}
_LONG = 60


class _Kind(NamedTuple):
    """A kind of doubtful name: whether a name is of it, what to say of one or many, and a cure."""

    fits: Callable[[str], object]
    one: str
    many: str
    cure: str


def _is_code(name: str) -> bool:
    return _CODE.fullmatch(name) is not None


def _is_latin(name: str) -> bool:
    return all(unicodedata.name(c, "").startswith("LATIN") for c in name if c.isalpha())


# fmt: off
_KINDS = (
    _Kind(_is_code, "looks like a code, not a word", "look like codes, not words",
          "Give real names with --names."),
    _Kind(lambda name: _NUMBERED.match(name) and not _is_code(name),
          "starts with a number", "start with a number",
          "It is read as part of the name; give names without with --names."),
    _Kind(_CAMEL.search, "runs words together", "run words together",
          "Put blanks or underscores between words."),
    _Kind(lambda name: len(name) < 3 and not _is_code(name), "is very short", "are very short",
          "Write it out with --names."),
    _Kind(lambda name: name.casefold() in _EMPTY_WORDS,
          "says nothing about what is in the picture", "say nothing about what is in the picture",
          "Describe what the pictures show, with --names."),
    _Kind(lambda name: len(name) > _LONG, "is very long", "are very long",
          "A few words describe a class best."),
    _Kind(lambda name: not _is_latin(name), "is not in Latin letters", "are not in Latin letters",
          "Most CLIPs know English only; translate with --names."),
)
# fmt: on


def name_warnings(
    class_names: Sequence[str],
    *,
    synonyms: Mapping[str, Sequence[str]] | None = None,
    tokens: Callable[[str], Sequence[int]] | None = None,
    template: str = "{}",
) -> list[str]:
    """A sentence for every kind of doubtful name, with an example; none if all look well.

    Args:
        synonyms: other names of a class.
        tokens: what a backbone's tokenizer makes of a text; without it, names that it reads as one
            are not looked for.
        template: with `{}` where the name goes; what the tokenizer reads.

    Example:
        >>> name_warnings(["n01440764", "tench"])
        ["1 name looks like a code, not a word: 'n01440764'. Give real names with --names."]
        >>> name_warnings(["cat", "red fox"])
        []
    """
    same = [] if tokens is None else same_tokens(class_names, tokens, synonyms, template)
    return [
        *(same_tokens_sentence(first, second) for first, second in same),
        *(
            _sentence(doubtful, kind)
            for kind in _KINDS
            if (doubtful := [name for name in class_names if kind.fits(name)])
        ),
        *_alike(class_names, same),
    ]


def same_tokens(
    class_names: Sequence[str],
    tokens: Callable[[str], Sequence[int]],
    synonyms: Mapping[str, Sequence[str]] | None = None,
    template: str = "{}",
) -> list[tuple[str, str]]:
    """Pairs of names, or synonyms, of two classes that a tokenizer makes the same tokens of.

    To the text model they are one text, so it can't prefer either class. Tokenizers undo HTML
    entities, straighten quotes and drop case and spare blanks.

    Example:
        >>> from promptot.backbones.tokenizer import ClipTokenizer
        >>> same_tokens(["fish &amp; chips", "fish & chips"], ClipTokenizer().encode)
        [('fish &amp; chips', 'fish & chips')]
    """
    seen: dict[tuple[int, ...], tuple[str, int]] = {}
    found = []
    for label, class_name in enumerate(class_names):
        for name in (class_name, *(synonyms or {}).get(class_name, ())):
            key = tuple(tokens(template.replace("{}", name)))
            first, owner = seen.setdefault(key, (name, label))
            if owner != label:
                found.append((first, name))
    return found


def same_tokens_sentence(first: str, second: str) -> str:
    """What to say of such a pair."""
    return (
        f"'{first}' and '{second}' are the same text to this text model, which can't tell the two "
        "classes apart. Give one another name with --names."
    )


def _sentence(names: list[str], kind: _Kind) -> str:
    if len(names) == 1:
        return f"1 name {kind.one}: '{names[0]}'. {kind.cure}"
    return f"{len(names)} names {kind.many}: {listed(names, 3, counted=False)}. {kind.cure}"


def _alike(class_names: Sequence[str], known: Sequence[tuple[str, str]]) -> list[str]:
    """Names that differ in plural, blanks or hyphens only, but for pairs that are known already."""
    seen: dict[str, str] = {}
    found = []
    for name in class_names:
        key = re.sub(r"[^\w]", "", name.casefold())
        key = key[:-1] if len(key) > 3 and key.endswith("s") else key
        if key in seen and (seen[key], name) not in known:
            found.append(f"'{seen[key]}' and '{name}' are almost one name. Are they two classes?")
        seen.setdefault(key, name)
    return found
