"""Accuracy of the exported model, measured through the package's own loading and transforms."""

from __future__ import annotations

import csv
import io
import json
import zipfile
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES
from PIL import Image
from torch import Tensor

from asset_build.augment import RESOLUTION
from asset_build.concepts import HELD_OUT_GROUP, TASK_GROUPS
from asset_build.features import to_tensor
from asset_build.photographs import class_of, list_photographs
from asset_build.render import load_style, on_white
from asset_build.sources import STYLES
from asset_build.trunk import FastTrunk, Head, load_trunk
from promptot.backbones.backbone import Backbone
from promptot.files.writing import write_json

TEMPLATE = "a photo of a {}."


@dataclass(frozen=True)
class Score:
    """Hits of one style in one group: within the group's names and among all names."""

    style: str
    split: str
    group: str
    images: int
    within: float
    among_all: float


@dataclass(frozen=True)
class Answer:
    """Whether one drawing was recognised, within its group's names and among all names."""

    style: str
    split: str
    group: str
    name: str
    within: bool
    among_all: bool


def score(answers: Sequence[Answer]) -> list[Score]:
    """Accuracy (%) by style and group, in the order of the answers."""
    parts: dict[tuple[str, str, str], list[Answer]] = {}
    for answer in answers:
        parts.setdefault((answer.style, answer.split, answer.group), []).append(answer)
    return [
        Score(
            *part,
            len(found),
            100 * sum(answer.within for answer in found) / len(found),
            100 * sum(answer.among_all for answer in found) / len(found),
        )
        for part, found in parts.items()
    ]


def answer_drawings(backbone: Backbone, drawings: Path) -> list[Answer]:
    """Zero-shot answers for all bundled drawings.

    Among all names means the names of the five task groups; for the held-out concepts it means
    those and the held-out ones.
    """
    with (drawings / "index.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = list(dict.fromkeys((row["name"], row["group"]) for row in rows))
    text = encode_names(backbone, [name for name, _ in names])
    groups = [group for _, group in names]
    column = {name: index for index, (name, _) in enumerate(names)}
    answers: list[Answer] = []
    with zipfile.ZipFile(drawings / "images.zip") as archive:
        for style in dict.fromkeys(row["style"] for row in rows):
            for group in (*TASK_GROUPS.values(), HELD_OUT_GROUP):
                chosen = [r for r in rows if r["style"] == style and r["group"] == group]
                pictures = (Image.open(io.BytesIO(archive.read(r["member"]))) for r in chosen)
                logits = encode_pictures(backbone, pictures) @ text.T
                labels = torch.tensor([column[row["name"]] for row in chosen])
                own = torch.tensor([g == group for g in groups])
                every = torch.tensor([g == group or g != HELD_OUT_GROUP for g in groups])
                within, among_all = (
                    (logits.masked_fill(~mask, -9).argmax(1) == labels).tolist()
                    for mask in (own, every)
                )
                answers += [
                    Answer(style, row["split"], group, row["name"], *hits)
                    for row, *hits in zip(chosen, within, among_all, strict=True)
                ]
    return answers


def score_photographs(backbone: Backbone, folder: Path) -> list[bool]:
    """Whether each photograph that was held out of the training is recognised, among CLIP's names
    for ImageNet's 1,000 classes."""
    paths = list_photographs(folder, held_out=True)
    names = list(dict.fromkeys(IMAGENET_CLASSNAMES))
    pictures = (Image.open(path) for path in paths)
    logits = encode_pictures(backbone, pictures) @ encode_names(backbone, names).T
    right = [IMAGENET_CLASSNAMES[class_of(path.name)] for path in paths]
    best = logits.argmax(1).tolist()
    return [names[index] == name for index, name in zip(best, right, strict=True)]


@torch.inference_mode()
def encode_names(backbone: Backbone, names: list[str]) -> Tensor:
    """Text features [C, D] of names in CLIP's template."""
    return backbone.encode_text(backbone.tokenize(names, TEMPLATE))


@torch.inference_mode()
def encode_pictures(backbone: Backbone, pictures: Iterable[Image.Image], batch: int = 64) -> Tensor:
    """Image features [n, D] of PIL images through the backbone's own test transform."""
    transform = backbone.preprocess.test()
    waiting: list[Tensor] = []
    done: list[Tensor] = []
    for picture in pictures:
        waiting.append(transform(picture.convert("RGB")))
        if len(waiting) == batch:
            done.append(backbone.encode_image(torch.stack(waiting)))
            waiting.clear()
    if waiting:
        done.append(backbone.encode_image(torch.stack(waiting)))
    return torch.cat(done)


def members_by_style(drawings: Path) -> dict[str, list[str]]:
    """Zip members of the bundled drawings, by style."""
    members: dict[str, list[str]] = {}
    with (drawings / "index.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            members.setdefault(row["style"], []).append(row["member"])
    return members


@dataclass(frozen=True)
class Kinship:
    """How alike two styles are, over the concepts that both draw.

    Attributes:
        similarity: mean cosine of two drawings of the same concept, features centred by style.
        retrieved: % of concepts whose nearest drawing of the other style is the same concept's.
        twins: % of concepts with a cosine above TWIN.
    """

    first: str
    second: str
    concepts: int
    similarity: float
    retrieved: float
    twins: float


TWIN = 0.8
"""Cosine above which two drawings of a concept count as twins."""


def kinships(
    rendered: Path, cache: Path, least: int = 60
) -> tuple[list[Kinship], dict[str, list[str]]]:
    """How alike styles are in the trunk's pooled features; read from `cache` if it is there.

    Returns:
        Every pair of styles outside plain icon sets that share `least` concepts or more, most
        alike first; and for each style outside the pretraining the slugs of its drawings that have
        a twin in a pretraining style.
    """
    if cache.exists():
        stored = json.loads(cache.read_text())
        return [Kinship(**pair) for pair in stored["pairs"]], stored["twins"]
    model = load_trunk()
    head, trunk = Head(model), FastTrunk(model)
    features: dict[str, dict[str, Tensor]] = {}
    for style in STYLES:
        if not style.plain:
            features[style.name] = _style_features(rendered, style.name, head, trunk)
    pairs: list[Kinship] = []
    names = list(features)
    for i, first in enumerate(names):
        for second in names[i + 1 :]:
            common = [slug for slug in features[first] if slug in features[second]]
            if len(common) < least:
                continue
            a = torch.stack([features[first][slug] for slug in common])
            b = torch.stack([features[second][slug] for slug in common])
            cosines = a @ b.T
            own = cosines.diagonal()
            hits = (cosines.argmax(1) == torch.arange(len(common))).float().mean()
            pairs.append(
                Kinship(
                    first,
                    second,
                    len(common),
                    own.mean().item(),
                    100 * hits.item(),
                    100 * (own > TWIN).float().mean().item(),
                )
            )
    pairs.sort(key=lambda pair: -pair.similarity)
    split = {style.name: style.split for style in STYLES}
    pretrained = [rows for style, rows in features.items() if split[style] == "pretrain"]
    twins = {
        style: [
            slug
            for slug, row in rows.items()
            if any(slug in other and (row @ other[slug]).item() > TWIN for other in pretrained)
        ]
        for style, rows in features.items()
        if split[style] != "pretrain"
    }
    write_json(cache, {"pairs": [asdict(pair) for pair in pairs], "twins": twins})
    return pairs, twins


@torch.inference_mode()
def _style_features(rendered: Path, style: str, head: Head, trunk: FastTrunk) -> dict[str, Tensor]:
    pictures, slugs = load_style(rendered, style)
    size = (RESOLUTION, RESOLUTION)
    pooled: list[Tensor] = []
    for start in range(0, len(slugs), 64):
        views = [
            np.asarray(on_white(picture).resize(size, Image.Resampling.BICUBIC))
            for picture in pictures[start : start + 64]
        ]
        pooled.append(head(trunk(to_tensor(np.stack(views))).float()).mean(1))
    features = torch.cat(pooled)
    features = F.normalize(features - features.mean(0), dim=-1)
    first_row = {slug: slugs.index(slug) for slug in slugs}
    return {slug: features[row] for slug, row in first_row.items()}
