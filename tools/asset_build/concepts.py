"""The concepts (classes): Unicode emoji by name, and matching of drawings to them."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path

from asset_build.sources import Package

TASK_GROUPS = {
    "Animals & Nature": "animals",
    "Food & Drink": "food",
    "Travel & Places": "travel",
    "Activities": "activities",
    "Objects": "objects",
}
"""Unicode groups whose concepts are the classes of the bundled tasks."""

OTHER_GROUPS = {"Smileys & Emotion": "smileys", "People & Body": "people", "Symbols": "symbols"}
"""Groups that only widen the vocabulary of the pretraining."""

SKIPPED_SUBGROUPS = {
    "keycap", "alphanum", "geometric", "arrow", "av-symbol", "math", "punctuation", "currency",
    "gender", "transport-sign", "other-symbol", "skin-tone", "hair-style", "family",
    "person-resting", "person-gesture",
}  # fmt: skip
GENDERED = re.compile(r"\b(man|woman|men|women)\b")
HELD_OUT_GROUP = "unseen"
HELD_OUT_EVERY = 20
"""One task concept in this many is kept out of the pretraining and forms the group `unseen`."""


@dataclass(frozen=True)
class Concept:
    """One thing that many artists have drawn.

    Attributes:
        slug: unique id, also the file name in the asset.
        name: class name as a human would write it in a prompt.
        group: task group ("animals", ...), `unseen` for a concept kept out of the pretraining.
        subgroup: Unicode subgroup, such as "animal-mammal".
        emoji: the code points.
        words: keywords and synonyms (never the name itself).
        aliases: normalised names under which icon sets may carry it.
    """

    slug: str
    name: str
    group: str
    subgroup: str
    emoji: str
    words: tuple[str, ...]
    aliases: tuple[str, ...]

    @property
    def in_tasks(self) -> bool:
        """Whether it is a class of a bundled task."""
        return self.group in TASK_GROUPS.values() or self.group == HELD_OUT_GROUP


def normalise(name: str) -> str:
    """Letters and digits only, lower case: "Bell with slash" and "bell-with-slash" are one.

    >>> normalise("Bell with-slash")
    'bellwithslash'
    """
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    return re.sub("[^a-z0-9]", "", plain)


def clean_name(name: str) -> str:
    """The Unicode name as one would say it in a prompt.

    >>> clean_name("flag: in hole"), clean_name("T-Rex"), clean_name("input: “x”")
    ('flag in hole', 'T-Rex', 'input x')
    """
    name = re.sub(r"[“”\"!:]", "", name.replace("’", "'"))
    return re.sub(r"\s+", " ", name).strip()


def load_concepts(cache: Path) -> list[Concept]:
    """All concepts, in Unicode order; every `HELD_OUT_EVERY`-th task concept is `unseen`."""
    listed = Package(cache, "unicode-emoji-json").json("data-by-emoji.json")
    base = Package(cache, "emojibase-data")
    details = {_key(item["emoji"]): item for item in base.json("en/data.json")}
    subgroup_names = base.json("meta/groups.json")["subgroups"]
    shortcodes = [
        base.json(f"en/shortcodes/{which}.json") for which in ("emojibase", "github", "iamcal")
    ]
    concepts: list[Concept] = []
    for emoji, entry in listed.items():
        detail = details.get(_key(emoji))
        group = TASK_GROUPS.get(entry["group"]) or OTHER_GROUPS.get(entry["group"])
        if detail is None or group is None:
            continue
        subgroup = str(subgroup_names[str(detail["subgroup"])])
        name = clean_name(entry["name"])
        task = entry["group"] in TASK_GROUPS
        if re.search(r"o'clock|-thirty", name) or (
            not task and (subgroup in SKIPPED_SUBGROUPS or GENDERED.search(name))
        ):
            continue
        words = tuple(word for word in detail.get("tags", ()) if normalise(word) != normalise(name))
        aliases = {normalise(entry["name"])}
        aliases |= {normalise(code) for table in shortcodes for code in _codes(table, detail)}
        characters = emoji.replace("\ufe0f", "")
        if len(characters) == 1:
            aliases.add(normalise(unicodedata.name(characters, "")))
        slug = re.sub("[^a-z0-9]+", "-", _ascii(name).lower()).strip("-")
        concepts.append(
            Concept(slug, name, group, subgroup, emoji, words, tuple(sorted(aliases - {""})))
        )
    return _hold_out(concepts)


def alias_table(concepts: list[Concept]) -> dict[str, Concept]:
    """Normalised name → concept. A concept's own name wins over another's alias; names that two
    concepts claim as aliases are dropped."""
    claims: dict[str, list[Concept]] = {}
    for concept in concepts:
        for alias in concept.aliases:
            claims.setdefault(alias, []).append(concept)
    table = {alias: owners[0] for alias, owners in claims.items() if len(owners) == 1}
    table.update({normalise(concept.name): concept for concept in concepts})
    return table


def _hold_out(concepts: list[Concept]) -> list[Concept]:
    held: list[Concept] = []
    counter = 0
    for concept in concepts:
        group = concept.group
        if concept.in_tasks:
            counter += 1
            if counter % HELD_OUT_EVERY == HELD_OUT_EVERY // 2:
                group = HELD_OUT_GROUP
        held.append(Concept(**{**concept.__dict__, "group": group}))
    return held


def _codes(table: dict[str, str | list[str]], detail: dict[str, str]) -> list[str]:
    codes = table.get(detail["hexcode"], [])
    return [codes] if isinstance(codes, str) else codes


def _key(emoji: str) -> str:
    return emoji.replace("\ufe0f", "")


def _ascii(text: str) -> str:
    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()
