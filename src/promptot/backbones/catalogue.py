"""Which backbones there are, what is known of each, and which to choose for what.

The facts lie in `catalogue.yaml`, made by `tools/make_catalogue.py`; each names its source there,
and one without a source is None here. What can learn in a backbone stands there too: the tool asks
the loaders, which build each architecture without weights. Nothing is built to list them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache, cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from typing import Any

from promptot.backbones.loadable import missing, refusal
from promptot.errors import PromptotError, nearest

ADAPTS = ("text prompts", "image prompts", "feature adapters")
"""What can learn in a backbone; the last: heads and caches on its features, which stay frozen."""
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
        image_prompts: whether tokens can join an image. They can't in a network without any
            (ResNet, ConvNeXt, FastViT), which is used as it is.
        needs_transformers: whether its tokenizer or its loader is one of transformers.
        verified_by: what showed that its kind is computed rightly, a key of
            `Catalogue.verifications`; None where nothing of it was compared.
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
    image_prompts: bool = True
    needs_transformers: bool = False
    verified_by: str | None = None
    same_as: str | None = None
    purpose: str | None = None
    reason: str | None = None
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def refusal(self) -> str | None:
        """Why it can't be loaded here, in a sentence; None if it can."""
        known = read_catalogue()
        if self.name in known.of_open_clip and known.open_clip == _installed_open_clip():
            return missing(self.name) if self.needs_transformers else None
        return refusal(self.name)

    @property
    def adapts(self) -> tuple[str, ...]:
        """What can learn in it, of `ADAPTS`."""
        return tuple(what for what in ADAPTS if self.image_prompts or what != "image prompts")

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
        verifications: key → what was compared with what, and what was not.
        open_clip: the version whose pretrained weights are listed.
    """

    entries: tuple[BackboneEntry, ...]
    sources: Mapping[str, str]
    purposes: Mapping[str, str]
    verifications: Mapping[str, str]
    open_clip: str

    @cached_property
    def of_open_clip(self) -> frozenset[str]:
        """Names of the weights in open_clip's own list."""
        names = (entry.name for entry in self.entries)
        return frozenset(n for n in names if n.startswith("open_clip:") and "hf-hub:" not in n)

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
            supported: only those that can be loaded here.
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
    return Catalogue(
        entries,
        content["sources"],
        content["purposes"],
        content["verifications"],
        content["open_clip"],
    )


def list_backbones() -> tuple[BackboneEntry, ...]:
    """What is known of every backbone: the bundled one, open_clip's and transformers'.

    It takes no network, and builds no model.

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
    return entry.parameters or 0


def _installed_open_clip() -> str | None:
    try:
        return version("open_clip_torch")
    except PackageNotFoundError:
        return None


def used_sources(entries: Iterable[BackboneEntry], catalogue: Catalogue) -> dict[str, str]:
    """The sources of these entries: key → text."""
    used = {key for entry in entries for key in entry.sources.values()}
    return {key: text for key, text in catalogue.sources.items() if key in used}
