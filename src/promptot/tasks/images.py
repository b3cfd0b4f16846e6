"""Reading one image file, whatever its format, into plain RGB; or saying why that can't be done."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import threading
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO
from zipfile import ZipFile

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from promptot.errors import PromptotError

# fmt: off
IMAGE_SUFFIXES = frozenset({
    ".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".webp", ".gif", ".bmp", ".dib", ".tif",
    ".tiff", ".ppm", ".pgm", ".pbm", ".pnm", ".ico", ".tga", ".jp2", ".avif", ".heic", ".heif",
})
"""File name endings (lower case) that are taken for images."""

# Formats whose decoder is part of Pillow or a plug-in; none of these starts another program.
_FORMATS = [
    "JPEG", "MPO", "PNG", "WEBP", "GIF", "BMP", "DIB", "TIFF", "PPM", "ICO", "TGA", "JPEG2000",
    "AVIF", "HEIF",
]
# fmt: on
_MAX_PIXELS = 180_000_000
_MAX_BYTES = 1 << 30
_MAX_ASPECT = 200
_LARGE_PIXELS = 30_000_000
_large = threading.Lock()
"""Threads take turns with images larger than that, so that memory holds one of them at most."""


class UnreadableImage(PromptotError):  # noqa: N818 - what it is, not how it ends
    """An image that can't be read: `path` says which, `reason` why."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"Can't read the image '{path}': {reason}.")
        self.path = path
        self.reason = reason

    def __reduce__(self) -> tuple[type[UnreadableImage], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # so that worker processes can pass it on


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image (case is ignored).

    Example:
        >>> is_image_name("Cat.JPG"), is_image_name("notes.txt")
        (True, False)
    """
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def load_image(path: str | os.PathLike[str]) -> Image.Image:
    """Read an image as 8-bit RGB, upright, transparent parts on white.

    The rotation that cameras note (EXIF) is applied, 16-bit greys are scaled to 8 bits, of an
    animation the first frame is taken. `archive.zip::member` reads from inside a zip file.

    Raises:
        UnreadableImage: there is no such file, it is not an image, it is damaged, or it is too
            large or too narrow to work with (more than 180 megapixels, or 200 times as long as
            wide). It never waits: pipes and devices are refused unopened.
    """
    name = os.fspath(path)
    try:
        with _open(name) as file:
            return _decode(file, name)
    except UnreadableImage:
        raise
    except Exception as error:
        # Decoders raise anything at all on damaged bytes; every kind means the same to the caller.
        raise UnreadableImage(name, _reason(error)) from error


def upright_rgb(image: Image.Image, name: str = "image") -> Image.Image:
    """An image in memory as `load_image` would give it.

    Raises:
        UnreadableImage: its file turns out to be damaged.
    """
    try:
        return _to_rgb(ImageOps.exif_transpose(image))
    except Exception as error:  # as in `load_image`
        raise UnreadableImage(name, _reason(error)) from error


def image_hash(path: str | os.PathLike[str]) -> str:
    """SHA-256 of an image file's bytes (or of a zip member's), whatever it is called.

    Raises:
        UnreadableImage: there is no such file, or it can't be read.
    """
    name = os.fspath(path)
    digest = hashlib.sha256()
    try:
        with _open(name) as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except UnreadableImage:
        raise
    except Exception as error:  # as in `load_image`
        raise UnreadableImage(name, _reason(error)) from error
    return digest.hexdigest()


def _open(name: str) -> BinaryIO:
    archive, separator, member = name.partition(".zip::")
    if not separator:
        return Path(_regular_file(name)[0]).open("rb")
    archive, state = _regular_file(archive + ".zip", shown=name)
    # A handle shared with a forked process would share its position in the file: one per process.
    zip_file = _open_zip(archive, state.st_mtime_ns, state.st_size, os.getpid())
    try:
        info = zip_file.getinfo(member)
    except KeyError:
        raise UnreadableImage(name, "the zip file has no such member") from None
    if info.file_size > _MAX_BYTES:
        raise UnreadableImage(name, "it is larger than 1 GiB")
    if info.file_size == 0:
        raise UnreadableImage(name, "the file is empty")
    return io.BytesIO(zip_file.read(info))


@lru_cache(maxsize=8)
def _open_zip(archive: str, modified: int, size: int, process: int) -> ZipFile:
    return ZipFile(archive)


def _regular_file(name: str, shown: str | None = None) -> tuple[str, os.stat_result]:
    state = Path(name).stat()
    problem = None
    if stat.S_ISDIR(state.st_mode):
        problem = "it is a folder"
    elif not stat.S_ISREG(state.st_mode):
        problem = "it is a pipe or a device, not a file"
    elif state.st_size == 0:
        problem = "the file is empty"
    if problem:
        raise UnreadableImage(shown or name, problem)
    return name, state


def _decode(file: BinaryIO, name: str) -> Image.Image:
    try:
        image: Image.Image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        file.seek(0)
        raise UnreadableImage(name, _what_instead(file.read(512))) from None
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise UnreadableImage(name, f"{width} × {height} pixels are too many")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise UnreadableImage(name, f"{width} × {height} pixels are too narrow a strip")
    with _large if width * height > _LARGE_PIXELS else contextlib.nullcontext():
        return _read(image, file)


def _read(image: Image.Image, file: BinaryIO) -> Image.Image:
    image.load()
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a damaged EXIF block must not cost the picture
        file.seek(0)
        image = Image.open(file, formats=_formats())
        image.load()
    return _to_rgb(image)


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _to_rgb(image: Image.Image) -> Image.Image:
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


def _what_instead(head: bytes) -> str:
    """What a file that is no image seems to be, from its first bytes."""
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the image itself (run 'git lfs pull')"
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"msf1", b"hevc"}:
        return "it is a HEIC photo; convert it to JPEG first"
    if head.lstrip()[:1] == b"<":
        return "it holds HTML, SVG or XML text, not a pixel image"
    controls = any(byte < 9 or 13 < byte < 32 for byte in head)
    if not controls and sum(byte > 127 for byte in head) * 4 < len(head):
        return "it holds text, not an image"
    return "it is not an image of a known format"


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "permission denied"
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return "it has too many pixels"
    if isinstance(error, MemoryError):
        return "it does not fit into memory"
    if isinstance(error, OSError) and error.errno is not None:  # the system's, not a decoder's
        return (error.strerror or str(error)).lower()
    detail = (getattr(error, "strerror", None) or str(error) or type(error).__name__).rstrip(".")
    return f"it is damaged ({detail})"
