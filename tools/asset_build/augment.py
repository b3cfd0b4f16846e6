"""Random views of a drawing that bring one artist's style nearer to another's."""

from __future__ import annotations

import io
import math

import numpy as np
from PIL import Image, ImageFilter

RESOLUTION = 160
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def clean_view(picture: np.ndarray) -> np.ndarray:
    """An RGBA picture [S, S, 4] over white at the model's resolution, [R, R, 3] uint8."""
    rgba = _premultiplied(picture).resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC)
    return _over(rgba, np.full((1, 1, 3), 255.0, dtype=np.float32)).astype(np.uint8)


def random_view(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A random view [R, R, 3] uint8 of an RGBA picture [S, S, 4] uint8.

    Geometry (crop or margin, rotation, stretch, flip), then ink (outline, silhouette), background,
    colours, and finally what cameras, encoders and other artists do (blur, edges, few colours).
    """
    rgba = _geometry(_premultiplied(picture), rng)
    if rng.random() < 0.2:
        rgba = _outlined(rgba, rng)
    background = _background(rng)
    image = _over(_recoloured(rgba, rng), background)
    image = _colours(image, rng)
    return _effects(np.clip(image, 0, 255).astype(np.uint8), rng)


def _premultiplied(picture: np.ndarray) -> Image.Image:
    return Image.fromarray(np.asarray(picture), "RGBA").convert("RGBa")


def _geometry(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    side = image.width
    part = rng.random() < 0.6  # of the drawing; else the whole drawing with a margin
    span = math.sqrt(rng.uniform(0.5, 1.0)) if part else rng.uniform(1.0, 1.35)
    stretch = math.exp(rng.uniform(-0.15, 0.15))
    angle = rng.normal(0, 0.15) if rng.random() < 0.5 else 0.0
    flip = -1.0 if rng.random() < 0.5 else 1.0
    shift = abs(1 - span) / 2 * side
    centre_x, centre_y = (
        side / 2 + rng.uniform(-shift, shift),
        side / 2 + rng.uniform(-shift, shift),
    )
    step_x, step_y = side * span * stretch / RESOLUTION, side * span / stretch / RESOLUTION
    a, b = flip * math.cos(angle) * step_x, -math.sin(angle) * step_y
    d, e = flip * math.sin(angle) * step_x, math.cos(angle) * step_y
    half = RESOLUTION / 2
    matrix = (a, b, centre_x - (a + b) * half, d, e, centre_y - (d + e) * half)
    size = (RESOLUTION, RESOLUTION)
    return image.transform(size, Image.Transform.AFFINE, matrix, Image.Resampling.BICUBIC)


def _outlined(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """A stroke around the shape, as some artists draw it."""
    alpha = np.asarray(image.getchannel("a"), dtype=np.float32)
    reach = int(rng.choice([3, 5, 7]))
    grown = np.asarray(image.getchannel("a").filter(ImageFilter.MaxFilter(reach)), np.float32)
    ink = rng.uniform(0, 90, 3) if rng.random() < 0.75 else rng.uniform(150, 255, 3)
    rgba = np.asarray(image, dtype=np.float32).copy()
    rgba[..., :3] += ink * ((grown - alpha).clip(0) / 255)[..., None]
    rgba[..., 3] = np.maximum(grown, alpha)
    return Image.frombytes("RGBa", image.size, rgba.clip(0, 255).astype(np.uint8).tobytes())


def _background(rng: np.random.Generator) -> np.ndarray:
    kind = rng.random()
    white = np.full((1, 1, 3), 255.0, dtype=np.float32)
    if kind < 0.6:
        return white
    if kind < 0.75:
        return white - rng.uniform(0, 110, 3).astype(np.float32)
    if kind < 0.83:
        return np.asarray(rng.uniform(0, 255, (1, 1, 3)), np.float32)
    grid = int(rng.integers(2, 7))  # a smooth pattern
    low = rng.uniform(90, 255, (grid, grid, 3)).astype(np.uint8)
    smooth = Image.fromarray(low).resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC)
    return np.asarray(smooth, dtype=np.float32)


def _recoloured(image: Image.Image, rng: np.random.Generator) -> Image.Image:
    """Sometimes one ink for all: a silhouette, or a tint of a drawing in one colour."""
    if rng.random() > 0.06:
        return image
    rgba = np.asarray(image, dtype=np.float32).copy()
    rgba[..., :3] = rgba[..., 3:] / 255 * rng.uniform(0, 170, 3)
    return Image.frombytes("RGBa", image.size, rgba.astype(np.uint8).tobytes())


def _over(image: Image.Image, background: np.ndarray) -> np.ndarray:
    rgba = np.asarray(image, dtype=np.float32)
    return rgba[..., :3] + background * (1 - rgba[..., 3:] / 255)


def _colours(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One linear map of the colours: hue, saturation, contrast and brightness, grey, negative."""
    matrix = np.eye(3, dtype=np.float32)
    offset = 0.0
    if rng.random() < 0.6:
        matrix = _hue(rng.normal(0, 0.35)) @ matrix
        saturation = rng.uniform(0.4, 1.6)
        matrix = (saturation * np.eye(3) + (1 - saturation) * LUMA) @ matrix
        contrast = rng.uniform(0.6, 1.3)
        matrix = contrast * matrix
        offset = 128 * (1 - contrast) + rng.normal(0, 18)
    kind = rng.random()
    if kind < 0.14:
        matrix = np.tile(LUMA, (3, 1)) @ matrix
    elif kind < 0.20:
        matrix, offset = -matrix, 255 - offset
    elif kind < 0.26:
        matrix = matrix[rng.permutation(3)]
    return image @ matrix.T.astype(np.float32) + np.float32(offset)


def _hue(angle: float) -> np.ndarray:
    """Rotation of the colours about the grey axis."""
    cos, sin = math.cos(angle), math.sin(angle) / math.sqrt(3)
    third = (1 - cos) / 3
    return np.array(
        [
            [cos + third, third - sin, third + sin],
            [third + sin, cos + third, third - sin],
            [third - sin, third + sin, cos + third],
        ],
        dtype=np.float32,
    )


def _effects(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    image = Image.fromarray(pixels)
    kind = rng.random()
    if kind < 0.10:  # a line drawing
        edges = image.convert("L").filter(ImageFilter.GaussianBlur(rng.uniform(0.5, 1.2)))
        lines = np.asarray(edges.filter(ImageFilter.FIND_EDGES), dtype=np.float32)
        lines = 255 - np.clip(lines * rng.uniform(2, 6), 0, 255)
        lines[:2], lines[-2:], lines[:, :2], lines[:, -2:] = 255, 255, 255, 255
        image = Image.fromarray(lines.astype(np.uint8)).convert("RGB")
    elif kind < 0.16:  # few colours
        levels = 255 / rng.integers(2, 6)
        flat = np.round(np.asarray(image, dtype=np.float32) / levels) * levels
        image = Image.fromarray(flat.clip(0, 255).astype(np.uint8))
    elif kind < 0.22:
        image = image.filter(ImageFilter.ModeFilter(5))
    elif kind < 0.28:  # flat areas lit from one corner
        ramp = np.linspace(rng.uniform(0.6, 1), rng.uniform(1, 1.3), RESOLUTION, dtype=np.float32)
        light = np.outer(ramp, ramp)[:: rng.choice([-1, 1]), :: rng.choice([-1, 1]), None]
        image = Image.fromarray((np.asarray(image) * light).clip(0, 255).astype(np.uint8))
    if rng.random() < 0.15:
        image = image.filter(ImageFilter.GaussianBlur(rng.uniform(0.4, 1.8)))
    if rng.random() < 0.3:
        small = int(rng.integers(56, 144))
        image = image.resize((small, small), Image.Resampling.BILINEAR)
        image = image.resize((RESOLUTION, RESOLUTION), Image.Resampling.BICUBIC)
    if rng.random() < 0.15:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(25, 85)))
        image = Image.open(buffer).convert("RGB")
    return np.asarray(image)
