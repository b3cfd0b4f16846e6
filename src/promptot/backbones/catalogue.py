"""Which backbones there are, what is known of each, and which to choose for what.

The facts lie in `catalogue.yaml`, made by `tools/make_catalogue.py`; each names its source there,
and one without a source is None here. What can be adapted is not written there: it is what the
loaders of this version do (`support.refusal`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from promptot.backbones.loadable import refusal
from promptot.errors import PromptotError, nearest

PROMPTS = ("text prompts", "image prompts")
FACTS = ("parameters", "resolution", "download", "gflops", "imagenet", "licence")
"""What an entry can say only with a source."""


@dataclass(frozen=True)
class BackboneEntry:
    """What is known of one backbone.

    Attributes:
        name: as `load_backbone` takes it.
        parameters: of both towers.
        resolution: side of the square input, in pixels.
        download: bytes.
        gflops: of one image and one text, in units of 10⁹ operations.
        imagenet: zero-shot top-1 accuracy on ImageNet, percent.
        licence: of the weights.
        multilingual: whether it was made for names in many languages.
        same_as: another name of the same weights and the same function.
        purpose: what it is recommended for, a key of `Catalogue.purposes`; None if it is not.
        reason: why, in a sentence.
        sources: fact → key of `Catalogue.sources`.
    """

    name: str
    parameters: int | None = None
    resolution: int | None = None
    download: int | None = None
    gflops: float | None = None
    imagenet: float | None = None
    licence: str | None = None
    multilingual: bool = False
    same_as: str | None = None
    purpose: str | None = None
    reason: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """Why it can't be loaded yet, in a sentence; None if it can."""
        return refusal(self.name)

    @property
    def adapts(self) -> tuple[str, ...]:
        """What can learn in it, of `PROMPTS`; empty if it can't be loaded yet."""
        return PROMPTS if self.refusal is None else ()

    def as_json(self) -> dict[str, Any]:
        """All of it, as `promptot backbones --json` writes it."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {
            **facts,
            "sources": dict(self.sources),
            "adapts": list(self.adapts),
            "refusal": self.refusal,
        }


@dataclass(frozen=True)
class Catalogue:
    """All entries, and what the keys in them mean.

    Attributes:
        entries: as the file has them: bundled, open_clip's, transformers'.
        sources: key → where a fact was read or how it was worked out.
        purposes: key → what it means, in the order in which they are shown.
    """

    entries: tuple[BackboneEntry, ...]
    sources: Mapping[str, str]
    purposes: Mapping[str, str]

    def recommended(self) -> list[BackboneEntry]:
        """Those that are recommended for something, by purpose."""
        order = list(self.purposes)
        chosen = [entry for entry in self.entries if entry.purpose is not None]
        return sorted(chosen, key=lambda entry: (order.index(entry.purpose or ""), _size(entry)))

    def select(
        self,
        *,
        search: str = "",
        purpose: str | None = None,
        max_parameters: float | None = None,
        max_download: float | None = None,
        supported: bool = False,
        twins: bool = False,
    ) -> list[BackboneEntry]:
        """Those that meet all conditions, the most accurate first, unknown accuracy last.

        An entry whose size is unknown does not meet a condition on its size.

        Args:
            search: words that must all occur in name or licence; case is ignored.
            purpose: key of `purposes`; "languages" has all that are multilingual.
            max_parameters: at most so many.
            max_download: at most so many bytes.
            supported: only those that can be adapted.
            twins: also further names of the same weights.

        Raises:
            PromptotError: there is no such purpose.
        """
        if purpose is not None and purpose not in self.purposes:
            raise PromptotError(
                f"There is no purpose '{purpose}'.", fix=nearest(purpose, self.purposes)
            )
        words = search.lower().split()
        found = [
            entry
            for entry in self.entries
            if all(word in f"{entry.name} {entry.licence or ''}".lower() for word in words)
            and (purpose is None or _serves(entry, purpose))
            and _within(entry.parameters, max_parameters)
            and _within(entry.download, max_download)
            and (twins or entry.same_as is None or entry.purpose is not None)
            and (not supported or entry.refusal is None)
        ]
        return sorted(found, key=lambda entry: -(entry.imagenet or 0))


@cache
def read_catalogue() -> Catalogue:
    """The catalogue of this version.

    Example:
        >>> catalogue = read_catalogue()
        >>> catalogue.select(search="ViT-B-16/openai")[0].imagenet
        68.34
    """
    import yaml

    text = (files("promptot") / "backbones" / "catalogue.yaml").read_text(encoding="utf-8")
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    content = yaml.load(text, Loader=loader)
    entries = tuple(BackboneEntry(**row) for row in content["backbones"])
    return Catalogue(entries, content["sources"], content["purposes"])


def list_backbones() -> tuple[BackboneEntry, ...]:
    """What is known of every backbone: the bundled one, open_clip's and transformers'.

    Example:
        >>> "bundled:tiny" in {entry.name for entry in list_backbones()}
        True
    """
    return read_catalogue().entries


def _serves(entry: BackboneEntry, purpose: str) -> bool:
    return entry.purpose == purpose or (purpose == "languages" and entry.multilingual)


def _within(value: int | None, most: float | None) -> bool:
    return most is None or (value is not None and value <= most)


def _size(entry: BackboneEntry) -> float:
    return entry.gflops or entry.parameters or 0


def used_sources(entries: Iterable[BackboneEntry], catalogue: Catalogue) -> dict[str, str]:
    """The sources of these entries: key → text."""
    used = {key for entry in entries for key in entry.sources.values()}
    return {key: text for key, text in catalogue.sources.items() if key in used}
