"""What a backbone is checked on: pictures of several sizes and kinds, and sentences.

The pictures are made from the drawings in the package and from seeded noise, in memory.
"""

from __future__ import annotations

import io
import zipfile
from dataclasses import dataclass
from functools import cache

import numpy as np
from PIL import Image, ImageOps

from promptot.backbones.loaders.bundled_clip import ASSETS

DRAWINGS = ("dog-face", "tiger", "horse", "cat-face")
SENTENCES = (
    "a photo of a cat.",
    "a photo of a great white shark.",
    "a centered satellite photo of Annual Crop Land.",
    "Boeing 737-800",
    "St. Bernard (dog), rock & roll!",
    "a  jalapeño at the café's  door",
    "日本の猫 🦊",
    "it's the artist's 12,345th don't-touch_me drawing: 50% off?",
    "x",
)


@dataclass(frozen=True)
class Picture:
    """A picture as a user has it, and as it looks.

    Attributes:
        what: its kind, in words.
        data: the bytes of an image file, or an image in memory.
        upright: RGB, turned as its EXIF data says, transparent parts on white.
    """

    what: str
    data: bytes | Image.Image
    upright: Image.Image


@cache
def pictures() -> tuple[Picture, ...]:
    """The built-in pictures; the same in every process."""
    dog, tiger, horse, cat = (_drawing(name) for name in DRAWINGS)
    wide = _montage([dog, tiger, horse, cat, dog], 131).resize((641, 233), Image.Resampling.LANCZOS)
    tall = tiger.resize((203, 480), Image.Resampling.LANCZOS)
    found = [
        Picture("square drawing, 144 × 144", dog, dog),
        Picture("wide, 641 × 233", wide, wide),
        Picture("tall, 203 × 480", tall, tall),
    ]
    noise = _noise(1024, 768)
    found.append(Picture("large, 1024 × 768", noise, noise))
    grey = cat.convert("L").resize((45, 34))
    found.append(Picture("small and grey, 45 × 34", grey, grey.convert("RGB")))
    found.append(_transparent(horse.resize((300, 300))))
    found.append(_turned(_montage([cat, horse], 144)))
    return tuple(found)


def _drawing(name: str) -> Image.Image:
    archive = ASSETS / "drawings" / "images.zip"
    with zipfile.ZipFile(archive) as content:
        data = content.read(f"fluent-emoji/animals/{name}.webp")
    return Image.open(io.BytesIO(data)).convert("RGB")


def _montage(images: list[Image.Image], height: int) -> Image.Image:
    """Images beside each other."""
    canvas = Image.new("RGB", (height * len(images), height))
    for place, image in enumerate(images):
        canvas.paste(image.resize((height, height)), (height * place, 0))
    return canvas


def _noise(width: int, height: int) -> Image.Image:
    """Coarse blots under fine noise, so that a resize without antialiasing shows."""
    generator = np.random.default_rng(0)
    coarse = generator.integers(0, 256, (height // 96, width // 96, 3)).astype(np.uint8)
    blots = np.asarray(Image.fromarray(coarse).resize((width, height)), dtype=np.float64)
    fine = generator.normal(0, 60, (height, width, 1))
    return Image.fromarray(np.clip(blots + fine, 0, 255).astype(np.uint8))


def _transparent(image: Image.Image) -> Picture:
    """A PNG whose corners are transparent and whose middle is half so."""
    y, x = np.mgrid[: image.height, : image.width]
    inside = np.hypot(x - image.width / 2, y - image.height / 2) < image.width / 2
    alpha = Image.fromarray(np.where(inside, np.where(x % 40 < 20, 255, 128), 0).astype(np.uint8))
    layered = image.copy()
    layered.putalpha(alpha)
    white = Image.new("RGBA", image.size, "white")
    upright = Image.alpha_composite(white, layered).convert("RGB")
    return Picture("transparent PNG, 300 × 300", _encode(layered, "PNG"), upright)


def _turned(image: Image.Image) -> Picture:
    """A JPEG that lies on its side, as its EXIF data says."""
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise by a quarter
    data = _encode(image.rotate(90, expand=True), "JPEG", exif=exif, quality=90)
    stored = Image.open(io.BytesIO(data))
    upright = ImageOps.exif_transpose(stored).convert("RGB")
    return Picture(f"turned JPEG, {stored.width} × {stored.height}", data, upright)


def _encode(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
