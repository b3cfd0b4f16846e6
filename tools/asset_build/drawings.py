"""The images of the bundled tasks: `images.zip`, `index.csv` and the licences beside them."""

from __future__ import annotations

import csv
import io
import zipfile
from pathlib import Path

from PIL import Image

from asset_build.concepts import Concept
from asset_build.render import load_style, on_white
from asset_build.sources import STYLES
from promptot.files.writing import atomic_write

SIDE = 144
QUALITY = 72
EPOCH = (2026, 1, 1, 0, 0, 0)
"""Time stamp of the zip's members, fixed so that a rebuild gives the same bytes."""


def export_drawings(rendered: Path, folder: Path, concepts: list[Concept]) -> None:
    """Write the drawings of every style that is not in the pretraining.

    `images.zip` stores `<style>/<group>/<slug>.webp` uncompressed (WebP is compressed already, and
    members can be read one by one); `index.csv` has a row for each, styles and then concepts in
    Unicode order.
    """
    rows: list[tuple[str, ...]] = []
    with (
        atomic_write(folder / "images.zip") as path,
        zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive,
    ):
        for style in STYLES:
            if style.split == "pretrain":
                continue
            pictures, slugs = load_style(rendered, style.name)
            row_of = {slug: row for row, slug in enumerate(slugs)}
            for concept in concepts:
                if not concept.in_tasks or concept.slug not in row_of:
                    continue
                member = f"{style.name}/{concept.group}/{concept.slug}.webp"
                data = _webp(on_white(pictures[row_of[concept.slug]]))
                archive.writestr(zipfile.ZipInfo(member, EPOCH), data)
                rows.append(
                    (
                        style.name,
                        concept.group,
                        concept.subgroup,
                        concept.name,
                        style.split,
                        member,
                    )
                )
    with atomic_write(folder / "index.csv") as path, path.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(("style", "group", "subgroup", "name", "split", "member"))
        writer.writerows(rows)


def _webp(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    small = image.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
    small.save(buffer, "WEBP", quality=QUALITY, method=6)
    return buffer.getvalue()
