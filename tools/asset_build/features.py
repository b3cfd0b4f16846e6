"""Frozen trunk features of many views of every pretraining drawing, pass by pass on disk."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from asset_build.augment import RESOLUTION, clean_view, random_view
from asset_build.concepts import HELD_OUT_GROUP, Concept
from asset_build.render import load_style
from asset_build.sources import STYLES
from asset_build.trunk import MEAN, STD, FastTrunk, load_trunk
from promptot.files.writing import write_json

BATCH = 64


@dataclass(frozen=True)
class Drawing:
    """One drawing of the pretraining: row `row` of the style's pictures."""

    style: str
    row: int
    slug: str


def list_drawings(rendered: Path, concepts: list[Concept]) -> list[Drawing]:
    """All drawings of pretraining styles but those of concepts that are held out."""
    allowed = {concept.slug for concept in concepts if concept.group != HELD_OUT_GROUP}
    drawings: list[Drawing] = []
    for style in STYLES:
        if style.split == "pretrain":
            slugs = json.loads((rendered / f"{style.name}.json").read_text())
            drawings += [
                Drawing(style.name, row, slug) for row, slug in enumerate(slugs) if slug in allowed
            ]
    return drawings


def extract_pass(rendered: Path, folder: Path, drawings: list[Drawing], number: int) -> None:
    """Features of one view of every drawing: `view-<number>.npy` [n, N, 320] fp16.

    View 0 is the drawing itself on white, the others are random; view k of drawing i is drawn from
    its own seed (k, i), so passes can be made in any order and on several cores.
    """
    target = folder / f"view-{number}.npy"
    if target.exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {d.style: load_style(rendered, d.style)[0] for d in drawings}
    trunk = FastTrunk(load_trunk())
    maps: list[np.ndarray] = []
    for start in range(0, len(drawings), BATCH):
        views = [
            random_view(pictures[d.style][d.row], np.random.default_rng((number, start + i)))
            if number
            else clean_view(pictures[d.style][d.row])
            for i, d in enumerate(drawings[start : start + BATCH])
        ]
        maps.append(trunk(to_tensor(np.stack(views))).numpy())
    partial = target.with_suffix(".partial.npy")
    np.save(partial, np.concatenate(maps))
    partial.replace(target)
    write_json(folder / "drawings.json", [[d.style, d.row, d.slug] for d in drawings])
    print(f"features of view {number}: {len(drawings)} drawings", flush=True)


def to_tensor(views: np.ndarray) -> Tensor:
    """Views [B, R, R, 3] uint8 → normalised images [B, 3, R, R]."""
    images = torch.from_numpy(views).permute(0, 3, 1, 2).float() / 255
    return (images - torch.tensor(MEAN).view(3, 1, 1)) / torch.tensor(STD).view(3, 1, 1)


def features_outside(drawings: Path, cache: Path) -> dict[str, tuple[Tensor, list[str]]]:
    """Trunk features of the bundled drawings, by style: (maps [n, N, 320] fp16, slugs [n]).

    Read from `cache` if it is there. Test styles are left out: training must not look at them.
    """
    if cache.exists():
        found: dict[str, tuple[Tensor, list[str]]] = torch.load(cache, weights_only=True)
        return found
    trunk = FastTrunk(load_trunk())
    size = (RESOLUTION, RESOLUTION)
    members: dict[str, list[str]] = {}
    with (drawings / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            if row["split"] != "test":
                members.setdefault(row["style"], []).append(row["member"])
    result: dict[str, tuple[Tensor, list[str]]] = {}
    with zipfile.ZipFile(drawings / "images.zip") as archive:
        for style, paths in members.items():
            maps: list[Tensor] = []
            for start in range(0, len(paths), BATCH):
                views = [
                    np.asarray(
                        Image.open(io.BytesIO(archive.read(path))).convert("RGB").resize(size)
                    )
                    for path in paths[start : start + BATCH]
                ]
                maps.append(trunk(to_tensor(np.stack(views))))
            result[style] = (torch.cat(maps), [Path(path).stem for path in paths])
    torch.save(result, cache)
    return result
