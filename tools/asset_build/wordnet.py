"""WordNet's nouns: which words there are, what they mean, and what is a kind of what.

Princeton University, "About WordNet", 2010 (https://wordnet.princeton.edu), in its version 3.0,
whose numbers are those of ImageNet's classes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from asset_build.sources import Package
from promptot.data.catalog.public.imagenet import imagenet_folders

FILES = "database/3.0"

THINGS = {5: "animal", 6: "artifact", 8: "body", 13: "food", 17: "object", 20: "plant"}
"""WordNet's files of nouns for what a photograph shows, by number."""

OTHERS = {3: "tops", 18: "person", 19: "phenomenon", 25: "shape", 27: "substance"}
"""Those that it shows at times."""

TAXA = re.compile(
    r"(genus|family|order|class|phylum|division|sub\w+|super\w+|tribe|kingdom|infra\w+) \w+", re.I
)
"""Lemmas such as "genus Canis", which nobody writes under a photograph."""


@dataclass(frozen=True)
class Synset:
    """One meaning.

    Attributes:
        number: WordNet's, as in ImageNet's "n02084071" without the n.
        kind: a name of THINGS or OTHERS, or "" for any other noun.
        lemmas: the words for it.
        gloss: its definition, without examples.
        above: numbers of what it is a kind of.
        named: whether it is one particular thing, such as a river or a person.
    """

    number: str
    kind: str
    lemmas: tuple[str, ...]
    gloss: str
    above: tuple[str, ...]
    named: bool


class WordNet:
    """The nouns, and how they lie above some classes.

    Args:
        data, index: the texts of `data.noun` and `index.noun`.
        leaves: numbers of the classes.
    """

    def __init__(self, data: str, index: str, leaves: Sequence[str]) -> None:
        self.synsets = {synset.number: synset for synset in _parse(data)}
        self.senses = dict(_senses(index))
        self.leaves = list(leaves)
        self._above: dict[str, frozenset[str]] = {}

    @classmethod
    def of_imagenet(cls, package: Package) -> WordNet:
        """That of the npm package, above ImageNet's 1,000 classes."""
        data, index = (
            package.bytes(f"{FILES}/{name}.noun").decode("latin-1") for name in ("data", "index")
        )
        return cls(data, index, [folder[1:] for folder in imagenet_folders()])

    def above(self, number: str) -> frozenset[str]:
        """The meaning itself and all that it is a kind of."""
        if number not in self._above:
            parents = self.synsets[number].above
            found = frozenset([number]).union(*(self.above(parent) for parent in parents))
            self._above[number] = found
        return self._above[number]

    @cached_property
    def classes_below(self) -> dict[str, list[int]]:
        """Of each meaning that has any: which of the classes are kinds of it."""
        found: dict[str, list[int]] = {}
        for index, leaf in enumerate(self.leaves):
            for number in sorted(self.above(leaf)):
                found.setdefault(number, []).append(index)
        return found

    def lookup(self, word: str) -> list[Synset]:
        """Meanings of a word, the most usual first, of the kinds in THINGS and OTHERS."""
        found = (self.synsets[number] for number in self.senses.get(word.lower(), ()))
        return [synset for synset in found if synset.kind]


def _parse(text: str) -> Iterator[Synset]:
    kinds = THINGS | OTHERS
    for line in text.splitlines():
        if line.startswith("  "):  # the licence
            continue
        head, _, gloss = line.partition(" | ")
        fields = head.split()
        words = int(fields[3], 16)
        pointers = fields[4 + 2 * words :]
        links: dict[str, list[str]] = {}
        for at in range(1, 1 + 4 * int(pointers[0]), 4):
            kind, number, part = pointers[at : at + 3]
            if part == "n":
                links.setdefault(kind, []).append(number)
        yield Synset(
            number=fields[0],
            kind=kinds.get(int(fields[1]), ""),
            lemmas=tuple(word.replace("_", " ") for word in fields[4 : 4 + 2 * words : 2]),
            gloss=re.split(r'; "', gloss)[0].strip(),
            above=(*links.get("@", ()), *links.get("@i", ())),
            named="@i" in links,
        )


def _senses(text: str) -> Iterator[tuple[str, list[str]]]:
    for line in text.splitlines():
        if not line.startswith("  "):
            fields = line.split()
            yield fields[0].replace("_", " "), fields[6 + int(fields[3]) :]
