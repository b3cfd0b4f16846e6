"""The page that recommends backbones says what the catalogue says."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from promptot.backbones.catalogue import BackboneEntry, read_catalogue

PAGE = (Path(__file__).parents[2] / "docs" / "which-backbone.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| `([^`]+)`( \*)? \|(.*)\|$", PAGE, re.MULTILINE)
ENTRIES = {entry.name: entry for entry in read_catalogue().entries}


def cells(entry: BackboneEntry) -> list[str]:
    """Size, download, side, accuracy, licence and prompts as the page writes them."""
    return [
        f"{entry.parameters / 1e6:,.0f} M" if entry.parameters else "",
        f"{entry.download / 1e9:.1f} GB" if entry.download else "",
        str(entry.resolution),
        f"{entry.imagenet:.1f}" if entry.imagenet else "",
        entry.licence or "–",
        "images, texts" if entry.image_prompts else "texts",
    ]


@pytest.mark.parametrize(("name", "needs", "rest"), ROWS, ids=[name for name, _, _ in ROWS])
def test_a_row_is_what_the_catalogue_knows(name: str, needs: str, rest: str) -> None:
    entry = ENTRIES[name]
    assert [cell.strip() for cell in rest.split("|")] == cells(entry)
    assert bool(needs) == entry.needs_transformers


def test_all_that_are_recommended_are_there() -> None:
    for entry in read_catalogue().recommended():
        assert entry.purpose == "start" or f"`{entry.name}`" in PAGE
    assert set(read_catalogue().verifications) <= set(re.findall(r"^- `(\w+)`:", PAGE, re.M))
