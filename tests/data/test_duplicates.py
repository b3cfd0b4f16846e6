from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageDraw

from promptot.data import load_bundled
from promptot.data.duplicates import appearance_of, find_pairs, group


def scene(seed: int) -> Image.Image:
    """Some shapes on a gradient."""
    generator = np.random.default_rng(seed)
    ramp = np.linspace(0, 1, 96)[:, None, None] * generator.integers(0, 256, 3)
    image = Image.fromarray(np.broadcast_to(ramp, (96, 128, 3)).astype(np.uint8))
    draw = ImageDraw.Draw(image)
    for _ in range(6):
        x, y, w, h = generator.integers(5, 60, 4).tolist()
        draw.ellipse((x, y, x + w, y + h), fill=tuple(generator.integers(0, 256, 3).tolist()))
    return image


def compressed(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def test_copies_are_found_and_others_are_not() -> None:
    images = [scene(seed) for seed in range(12)]
    copies = [
        images[2].resize((64, 48)),
        compressed(images[5], 40),
        images[7].crop((2, 1, 127, 95)),
        images[9].point(lambda value: min(255, value + 6)),
    ]
    pairs = find_pairs([appearance_of(image) for image in (*images, *copies)])
    assert pairs == [(2, 12), (5, 13), (7, 14), (9, 15)]


def test_plain_images_are_told_by_their_colour() -> None:
    colours = ["white", "red", "#fe0000"]
    assert find_pairs([appearance_of(Image.new("RGB", (40, 40), c)) for c in colours]) == [(1, 2)]


def test_different_drawings_of_one_style_are_no_copies() -> None:
    task = load_bundled("animals", styles=["fluent-emoji-flat", "twemoji"])
    pairs = find_pairs([appearance_of(example.load()) for example in task.examples[:150]])
    assert len(pairs) <= 3  # of 11,175


def test_nothing_and_more_than_a_block() -> None:
    assert find_pairs([]) == []
    prints = [appearance_of(scene(seed)) for seed in range(3)]
    many = [prints[place] for place in (0, *[1] * 3000, 2, 0)]
    assert group(find_pairs(many)) == [[0, 3002], list(range(1, 3001))]


def test_groups() -> None:
    assert group([(1, 2), (4, 5), (2, 4), (7, 9)]) == [[1, 2, 4, 5], [7, 9]]
