"""What is said of a real CLIP is true of open_clip's own configuration and list of weights."""

from __future__ import annotations

import open_clip
import torch

from promptot.backbones.catalogue import read_catalogue
from promptot.backbones.first_choice import FIRST_CHOICE, real_clip


def test_its_size_is_that_of_the_model_that_open_clip_builds() -> None:
    architecture, weights = FIRST_CHOICE.name.removeprefix("open_clip:").split("/")
    assert weights in open_clip.list_pretrained_tags_by_model(architecture)
    with torch.device("meta"):  # no memory, no weights
        model = open_clip.CLIP(**open_clip.get_model_config(architecture))
    assert FIRST_CHOICE.parameters == sum(p.numel() for p in model.parameters())
    assert FIRST_CHOICE.download == 4 * FIRST_CHOICE.parameters
    assert FIRST_CHOICE.size == "600 MB"
    assert abs(FIRST_CHOICE.download - 600e6) < 5e6


def test_it_is_said_of_the_bundled_model_with_own_images_alone() -> None:
    said = real_clip("bundled:tiny", own_images=True)
    assert said is not None
    assert f"--backbone {FIRST_CHOICE.name} " in said
    assert FIRST_CHOICE.size in said
    assert "\n" not in said
    assert "promptot fit photos" in str(real_clip("bundled:tiny", True, "promptot fit photos"))
    assert real_clip("bundled:tiny", own_images=False) is None
    assert real_clip("open_clip:ViT-B-32/openai", own_images=True) is None


def test_it_is_the_catalogues_own_first_choice_for_photographs() -> None:
    entry = read_catalogue().select(search=FIRST_CHOICE.name)[0]
    chosen = [found for found in read_catalogue().recommended() if found.purpose == "photographs"]
    assert entry.name == FIRST_CHOICE.name == chosen[0].name
    assert entry.parameters == FIRST_CHOICE.parameters
    assert entry.download == FIRST_CHOICE.download
