from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from promptot.data.images.read_image import UnreadableImage, image_hash, load_image

GREY = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
RGB = np.stack([GREY, GREY // 2, 255 - GREY], axis=2)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (RGB, RGB),
        (RGB / 255.0, RGB),
        (RGB.astype(np.int64), RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (np.asfortranarray(RGB), RGB),
        (RGB[:, ::-1], RGB[:, ::-1]),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1).float().div(255).requires_grad_(), RGB),
        (GREY, np.stack([GREY] * 3, axis=2)),
        (GREY[:, :, None], np.stack([GREY] * 3, axis=2)),
        (GREY > 100, np.stack([(GREY > 100) * 255] * 3, axis=2)),
        (GREY.tolist(), np.stack([GREY] * 3, axis=2)),
    ],
)
def test_arrays_and_tensors(values: Any, expected: np.ndarray) -> None:
    assert np.array_equal(np.asarray(load_image(values)), expected)


def test_a_transparent_array_lies_on_white() -> None:
    image = load_image(np.dstack([RGB, np.zeros((3, 4), np.uint8)]))
    assert np.asarray(image).min() == 255


@pytest.mark.parametrize(
    ("values", "part"),
    [
        (np.zeros(5), "an array of 5 is no image"),
        (np.zeros((2, 5, 5, 3)), "2 × 5 × 5 × 3 is no image"),
        (np.zeros((5, 5, 7)), "no image"),
        (np.zeros((0, 5)), "holds no pixel"),
        (np.full((4, 4), np.nan), "not finite"),
        (np.full((4, 4), 2.0), "from 0 to 1"),
        (np.full((4, 4), -1), "from 0 to 255"),
        (np.full((4, 4), 256), "from 0 to 255"),
        (np.full((4, 4), "x"), "no image"),
        (np.zeros((2, 500)), "too narrow"),
        (None, "there is no image"),
        (b"", "empty"),
    ],
)
def test_what_is_no_image(values: Any, part: str) -> None:
    with pytest.raises(UnreadableImage, match=part) as caught:
        load_image(values, "shelf[3]")
    assert caught.value.path == "shelf[3]"


def test_a_picture_in_memory_is_turned_upright_and_left_as_it_is() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG", exif=exif)
    picture = Image.open(buffer)
    assert load_image(picture).size == (3, 4)
    assert picture.size == (4, 3)
    assert np.array_equal(
        np.asarray(load_image(buffer.getvalue())), np.asarray(load_image(picture))
    )


def test_an_image_without_a_file_is_known_by_its_pixels() -> None:
    assert image_hash(RGB) == image_hash(Image.fromarray(RGB)) == image_hash(RGB / 255.0)
    assert image_hash(RGB) != image_hash(RGB.reshape(4, 3, 3))
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    assert image_hash(buffer.getvalue()) != image_hash(RGB)
