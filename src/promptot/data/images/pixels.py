"""Pixels of any kind as 8-bit RGB: modes of Pillow, arrays, tensors."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

CHANNELS = (1, 3, 4)


def to_rgb(image: Image.Image) -> Image.Image:
    """An image of any mode as RGB; transparent parts on white."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "F" or image.mode.startswith("I"):
        return Image.fromarray(_to_8_bit(np.asarray(image), image.mode)).convert("RGB")
    if "transparency" in image.info or image.mode in {"RGBA", "LA", "PA", "La", "RGBa"}:
        image = image.convert("RGBA")
        canvas = Image.new("RGBA", image.size, "white")
        canvas.alpha_composite(image)
        return canvas.convert("RGB")
    return image.convert("RGB")


def from_array(values: Any) -> Image.Image:
    """An array or tensor as an image.

    Args:
        values: [H, W], or with C channels, 1 (grey), 3 (RGB) or 4 (with transparency): arrays
            [H, W, C], tensors [C, H, W], either in the other's order where its own can't be meant;
            8 or 16 bits, other integers from 0 to 255, booleans, or floats from 0 to 1.

    Raises:
        ValueError: it is none of these; the text is a clause that says why.

    Example:
        >>> from_array(np.array([[0.0, 1.0]])).getpixel((1, 0))
        255
    """
    tensor = hasattr(values, "detach")
    array = np.asarray(values.detach().cpu() if tensor else values)
    channels_first = array.ndim == 3 and array.shape[0] in CHANNELS
    if channels_first and (tensor or array.shape[2] not in CHANNELS):
        array = np.moveaxis(array, 0, 2)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    shape = " × ".join(map(str, np.shape(values)))
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in CHANNELS):
        raise ValueError(f"an array of {shape} is no image; height × width × 3 would be")
    if array.size == 0:
        raise ValueError(f"an array of {shape} holds no pixel")
    return Image.fromarray(_bytes_of(array))


def _bytes_of(array: np.ndarray) -> np.ndarray:
    kind = array.dtype.kind
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if kind == "b":
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype == np.uint16:
        return np.rint(array / 257.0).astype(np.uint8)
    if kind not in "iuf":
        raise ValueError(f"an array of {array.dtype} is no image")
    low, high = float(array.min()), float(array.max())
    if not np.isfinite([low, high]).all():
        raise ValueError("it holds values that are not finite")
    if kind == "f":
        if low < -1e-3 or high > 1 + 1e-3:
            raise ValueError(
                f"floats must go from 0 to 1, and these from {low:.4g} to {high:.4g}; give the "
                "image as it was before it was normalised, or 8-bit integers"
            )
        return np.rint(array.clip(0, 1) * 255).astype(np.uint8)
    if low < 0 or high > 255:
        raise ValueError(f"integers must go from 0 to 255, and these from {low:.0f} to {high:.0f}")
    return array.astype(np.uint8)


def _to_8_bit(values: np.ndarray, mode: str) -> np.ndarray:
    """Greys of 16 or 32 bits, or floats, as 8 bits: the format's full range becomes 0..255.

    Where the format has no natural top (32-bit integers, floats) it is the smallest of the usual
    ones (1 for floats, 255, 65535) that holds the image, or else the image's own maximum.
    """
    grey = values.astype(np.float32)
    np.nan_to_num(grey, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    np.maximum(grey, 0, out=grey)
    largest = float(grey.max())
    tops = {"F": [1.0, 255.0, 65535.0], "I": [65535.0]}.get(mode, [65535.0])
    top = next((top for top in tops if largest <= top), largest)
    grey *= np.float32(255.0 / top)
    return np.rint(grey, out=grey).astype(np.uint8)
