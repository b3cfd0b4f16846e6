"""The files that ship inside the package are complete, consistent and readable."""

from __future__ import annotations

import csv
import hashlib
import io
import re
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image

import promptot
from promptot.backbones import load_backbone

ASSETS = Path(promptot.__file__).parent / "assets"
DRAWINGS = ASSETS / "drawings"
TINY = ASSETS / "tiny"
SPLITS = {"train", "validation", "test"}


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with (DRAWINGS / "index.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def archive() -> zipfile.ZipFile:
    return zipfile.ZipFile(DRAWINGS / "images.zip")


def test_all_assets_together_stay_below_25_megabytes() -> None:
    sizes = {path: path.stat().st_size for path in ASSETS.rglob("*") if path.is_file()}
    assert sum(sizes.values()) <= 25_000_000
    assert sizes[DRAWINGS / "images.zip"] <= 10_000_000


@pytest.mark.parametrize("folder", [DRAWINGS, TINY], ids=lambda folder: folder.name)
def test_every_file_has_the_checksum_of_its_card(folder: Path) -> None:
    card = (folder / "CARD.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `([^`]+)` \| `([0-9a-f]{64})` \|$", card, flags=re.MULTILINE))
    files = {p for p in folder.rglob("*") if p.is_file() and p.name != "CARD.md"}
    assert listed == {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def test_the_index_and_the_archive_list_the_same_images(
    rows: list[dict[str, str]], archive: zipfile.ZipFile
) -> None:
    members = [row["member"] for row in rows]
    assert len(members) == len(set(members))
    assert sorted(members) == sorted(archive.namelist())
    assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
    for row in rows:
        style, group, _ = row["member"].split("/")
        assert (style, group) == (row["style"], row["group"])
        assert row["name"].strip() == row["name"] != ""


def test_every_style_is_in_one_split_and_every_split_has_a_style(
    rows: list[dict[str, str]],
) -> None:
    pairs = {(row["style"], row["split"]) for row in rows}
    assert len(pairs) == len({style for style, _ in pairs})
    assert {split for _, split in pairs} == SPLITS


def test_a_concept_belongs_to_one_group_in_all_styles(rows: list[dict[str, str]]) -> None:
    pairs = {(row["name"], row["group"]) for row in rows}
    assert len(pairs) == len({name for name, _ in pairs})


def test_every_group_has_train_validation_and_test_drawings(rows: list[dict[str, str]]) -> None:
    for group in {row["group"] for row in rows}:
        assert {row["split"] for row in rows if row["group"] == group} == SPLITS


def test_images_can_be_decoded_and_show_something(archive: zipfile.ZipFile) -> None:
    for member in archive.namelist()[::97]:
        image = Image.open(io.BytesIO(archive.read(member))).convert("RGB")
        assert image.width == image.height >= 96
        assert max(high - low for low, high in image.getextrema()) > 60


def test_every_licence_of_the_card_is_present_with_its_styles(rows: list[dict[str, str]]) -> None:
    texts = {path.stem: path.read_text("utf-8") for path in (DRAWINGS / "LICENSES").glob("*.txt")}
    credits = {spdx: set(re.findall(r"^- (\S+): ", text, re.M)) for spdx, text in texts.items()}
    assert set.union(*credits.values()) == {row["style"] for row in rows}
    assert all(len(text) > 1000 for text in texts.values())
    card = (DRAWINGS / "CARD.md").read_text(encoding="utf-8")
    for spdx in texts:
        assert f"[{spdx}](" in card


def test_the_bundled_model_knows_drawings_of_a_style_it_never_saw(
    rows: list[dict[str, str]], archive: zipfile.ZipFile
) -> None:
    """A sample of the test style, right far more often than chance (0.8 %) or a broken model."""
    backbone = load_backbone("bundled:tiny")
    food = [row for row in rows if row["group"] == "food" and row["style"] == "twemoji"]
    transform = backbone.preprocess.test()
    sample = food[::4]
    images = torch.stack(
        [
            transform(Image.open(io.BytesIO(archive.read(row["member"]))).convert("RGB"))
            for row in sample
        ]
    )
    with torch.inference_mode():
        text = backbone.encode_text(backbone.tokenize([row["name"] for row in food]))
        best = (backbone.encode_image(images) @ text.T).argmax(1).tolist()
    hits = sum(food[found]["name"] == row["name"] for found, row in zip(best, sample, strict=True))
    assert hits / len(sample) >= 0.6
