"""SVG, glyphs and renders → RGBA pictures of one size, stored style by style."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from asset_build.concepts import Concept, alias_table, normalise
from asset_build.sources import STYLES, Package, Style, iconify_svgs
from promptot.files.writing import write_json

SIZE = 192
"""Side of a stored picture, in pixels."""

VARIANT = re.compile(
    r"-(outline(-rounded|-sharp)?|rounded|sharp|filled|fill|duotone|bold|light|thin|regular|negative"
    r"|solid|one|two|alt|variant|[0-9]+)$"
)
PLAIN_VARIANTS = 3
"""At most this many drawings a concept are taken of a plain icon set."""


def render_all(cache: Path, folder: Path, concepts: list[Concept]) -> None:
    """Render every style that is not in `folder` yet: `<style>.npy` [n, SIZE, SIZE, 4] uint8 with
    straight alpha, and `<style>.json`, the slug of each row."""
    folder.mkdir(parents=True, exist_ok=True)
    table = alias_table(concepts)
    for style in STYLES:
        if (folder / f"{style.name}.json").exists():
            continue
        pictures: list[np.ndarray] = []
        slugs: list[str] = []
        for slug, picture in _draw(cache, style, concepts, table):
            if picture[..., 3].max() < 32:  # an empty drawing
                continue
            pictures.append(picture)
            slugs.append(slug)
        np.save(folder / f"{style.name}.npy", np.stack(pictures))
        write_json(folder / f"{style.name}.json", slugs)
        print(f"rendered {style.name}: {len(slugs)} drawings", flush=True)


def load_style(folder: Path, style: str) -> tuple[np.ndarray, list[str]]:
    """(pictures [n, SIZE, SIZE, 4] mapped from disk, slugs [n]) of a rendered style."""
    pictures = np.load(folder / f"{style}.npy", mmap_mode="r")
    return pictures, json.loads((folder / f"{style}.json").read_text())


def on_white(picture: np.ndarray) -> Image.Image:
    """An RGBA picture [H, W, 4] over white, as an RGB image."""
    image = Image.fromarray(np.asarray(picture), "RGBA")
    canvas = Image.new("RGBA", image.size, (255, 255, 255, 255))
    return Image.alpha_composite(canvas, image).convert("RGB")


def _draw(
    cache: Path, style: Style, concepts: list[Concept], table: dict[str, Concept]
) -> Iterator[tuple[str, np.ndarray]]:
    package = Package(cache, style.package)
    if style.reader == "iconify":
        import resvg_py  # here: reading what was rendered needs none

        for concept, svg in _chosen(package, style, table):
            try:
                png = resvg_py.svg_to_bytes(svg_string=svg, width=SIZE, height=SIZE)
            except ValueError:  # a drawing that the renderer refuses
                continue
            yield concept.slug, _square(Image.open(io.BytesIO(bytes(png))))
    elif style.reader == "font":
        yield from _glyphs(package.bytes(style.detail), concepts)
    else:
        files = {Path(path).stem: path for path in package.files() if path.endswith(".webp")}
        for concept in concepts:
            points = [f"{ord(character):04x}" for character in concept.emoji]
            name = "-".join(points)
            path = files.get(name) or files.get("-".join(p for p in points if p != "fe0f"))
            if path:
                yield concept.slug, _square(Image.open(io.BytesIO(package.bytes(path))))


def _chosen(
    package: Package, style: Style, table: dict[str, Concept]
) -> Iterator[tuple[Concept, str]]:
    """The icons that match a concept: one a concept, or a few variants for plain icon sets."""
    taken: dict[str, int] = {}
    seen: set[str] = set()
    limit = PLAIN_VARIANTS if style.plain else 1
    svgs = dict(iconify_svgs(package))
    exact_first = sorted(svgs, key=lambda name: normalise(name) not in table)
    for name in exact_first:
        stem = name
        while normalise(stem) not in table and VARIANT.search(stem):
            stem = VARIANT.sub("", stem)
        concept = table.get(normalise(stem))
        if concept is None or taken.get(concept.slug, 0) >= limit or svgs[name] in seen:
            continue
        if style.plain and not concept.in_tasks:
            continue
        taken[concept.slug] = taken.get(concept.slug, 0) + 1
        seen.add(svgs[name])
        yield concept, svgs[name]


def _glyphs(font_file: bytes, concepts: list[Concept]) -> Iterator[tuple[str, np.ndarray]]:
    font = ImageFont.truetype(io.BytesIO(font_file), int(SIZE * 0.72))
    missing = font.getmask("\U0010fffe").getbbox()
    for concept in concepts:
        character = concept.emoji.replace("\ufe0f", "")
        mask = font.getmask(character)
        if len(character) > 1 or mask.getbbox() is None or mask.getbbox() == missing:
            continue
        left, top, right, bottom = font.getbbox(character)
        image = Image.new("L", (SIZE, SIZE), 0)
        position = ((SIZE - right - left) / 2, (SIZE - bottom - top) / 2)
        ImageDraw.Draw(image).text(position, character, font=font, fill=255)
        rgba = Image.new("RGBA", (SIZE, SIZE), (27, 27, 27, 0))
        rgba.putalpha(image)
        yield concept.slug, np.asarray(rgba)


def _square(image: Image.Image) -> np.ndarray:
    """Fit into a transparent square of SIZE pixels."""
    image = image.convert("RGBA")
    scale = SIZE / max(image.size)
    if scale != 1:
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    canvas = Image.new("RGBA", (SIZE, SIZE), (0, 0, 0, 0))
    canvas.paste(image, ((SIZE - image.width) // 2, (SIZE - image.height) // 2))
    return np.asarray(canvas)
