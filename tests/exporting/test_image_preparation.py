"""Exports say how images are prepared, for every way a backbone may want them."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import transformers
from PIL import Image

from promptot.backbones import Preprocess
from promptot.errors import PromptotError, PromptotWarning
from promptot.exporting.configurations import _open_clip_preprocess, clip_image_processor
from promptot.exporting.export import _resizing
from promptot.exporting.standalone.prompted_open_clip import _CropDown

WAYS = {
    "shortest": Preprocess(30),
    "squash": Preprocess(30, resize_mode="squash"),
    "longest": Preprocess(30, resize_mode="longest", fill=90),
    "none": Preprocess(30, resize_mode="none"),
    "cut": Preprocess(30, resize=41, crop_rounding="down"),
    "squash and cut": Preprocess(30, resize_mode="squash", resize=41, crop_rounding="down"),
    "lanczos": Preprocess(30, interpolation="lanczos"),
}
SIZES = [(64, 33), (101, 45), (45, 100), (30, 30), (20, 90), (101, 97)]


def picture(width: int, height: int) -> Image.Image:
    draw = np.random.default_rng(width).integers
    return Image.fromarray(draw(0, 256, (height, width, 3), dtype=np.uint8))


def from_description(about: dict[str, Any], image: Image.Image) -> np.ndarray:
    """What a program makes of `classifier.json` alone."""
    side, resize = about["centre_crop"][0], about["resize"]
    width, height = image.size
    if resize is not None:
        if "size" in resize:
            size = tuple(resize["size"])
        elif "short_side" in resize:
            short = resize["short_side"]
            size = tuple(int(short * length / min(image.size)) for length in image.size)
        else:
            ratio = max(image.size) / resize["long_side"]
            size = round(width / ratio), round(height / ratio)
        image = image.resize(size, Image.Resampling[resize["interpolation"].upper()])
    margins = [length - side for length in image.size]
    nearest = about["crop_rounding"] == "nearest"
    begin = [
        (round(margin / 2) if margin >= 0 else -(-margin // 2)) if nearest else margin // 2
        for margin in margins
    ]
    canvas = Image.new("RGB", (side, side), (about["fill"],) * 3)
    canvas.paste(image, (-begin[0], -begin[1]))
    return np.asarray(canvas)


@pytest.mark.parametrize("way", WAYS)
def test_the_description_tells_it_all(way: str) -> None:
    preprocess = replace(WAYS[way], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    about = {
        "resize": _resizing(preprocess),
        "centre_crop": [30, 30],
        "crop_rounding": preprocess.crop_rounding,
        "fill": preprocess.fill,
    }
    for size in SIZES:
        expected = preprocess.test()(picture(*size)).permute(1, 2, 0) * 255
        found = from_description(about, picture(*size))
        assert np.abs(found - expected.numpy()).max() < 1e-3


@pytest.mark.parametrize("way", WAYS)
def test_open_clip_s_configuration_is_the_same_or_refused(way: str) -> None:
    preprocess = WAYS[way]
    if way in ("none", "cut", "squash and cut", "lanczos"):
        with pytest.raises(PromptotError, match="for which the CLIP of open_clip has no place"):
            _open_clip_preprocess(preprocess)
        return
    described = open_clip.transform.PreprocessCfg(**_open_clip_preprocess(preprocess))
    theirs = open_clip.transform.image_transform_v2(described, is_train=False)
    for size in SIZES:
        difference = theirs(picture(*size)) - preprocess.test()(picture(*size))
        assert difference.abs().max() < 1e-6


@pytest.mark.parametrize("way", WAYS)
def test_transformers_processor_is_the_same_or_refused(way: str) -> None:
    preprocess = WAYS[way]
    if way == "longest":
        with pytest.raises(PromptotError, match="for which the CLIP of transformers has no place"):
            clip_image_processor(preprocess)
        return
    # In versions below 5 it goes by the other name.
    kind = getattr(transformers, "CLIPImageProcessorPil", transformers.CLIPImageProcessor)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", PromptotWarning)  # see the test below
        theirs = kind(**clip_image_processor(preprocess))
    ours = replace(preprocess, crop_rounding="down").test()
    for size in SIZES:
        found = theirs(picture(*size), return_tensors="np")["pixel_values"][0]
        assert np.abs(found - ours(picture(*size)).numpy()).max() < 2e-6


def test_the_folder_s_own_module_cuts_as_told() -> None:
    preprocess = Preprocess(
        30, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), "bicubic", "none", 0, None, "down"
    )
    for size in [(33, 40), (30, 35), (21, 44), (18, 17)]:
        found = np.asarray(_CropDown(30)(picture(*size)))
        expected = preprocess.test()(picture(*size)).permute(1, 2, 0) * 255
        assert np.abs(found - expected.numpy()).max() < 1e-3


def test_a_training_crop_is_a_square_whatever_the_mode() -> None:
    for preprocess in WAYS.values():
        torch.manual_seed(0)
        first = preprocess.train()(picture(101, 45))
        torch.manual_seed(0)
        plain = Preprocess(30, interpolation=preprocess.interpolation).train()(picture(101, 45))
        assert torch.equal(first, plain)


def test_unchanged_ways_are_written_as_before(tmp_path: Path) -> None:
    """Caches and cells are known by this text."""
    assert repr(Preprocess(30, interpolation="bilinear")) == (
        "Preprocess(resolution=30, mean=(0.48145466, 0.4578275, 0.40821073), "
        "std=(0.26862954, 0.26130258, 0.27577711), interpolation='bilinear')"
    )
    assert repr(WAYS["cut"]).endswith("interpolation='bicubic', resize=41, crop_rounding='down')")
    assert len({repr(way) for way in WAYS.values()}) == len(WAYS)


def test_transformers_warns_where_its_processor_cuts_otherwise() -> None:
    with pytest.warns(PromptotWarning, match="one pixel earlier"):
        clip_image_processor(Preprocess(32))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip_image_processor(Preprocess(32, crop_rounding="down"))
        clip_image_processor(Preprocess(32, resize_mode="squash"))
