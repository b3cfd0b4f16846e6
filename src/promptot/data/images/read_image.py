"""Reading one image, whatever its format, into plain RGB; or saying why that can't be done."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import threading
from collections.abc import Collection, Iterator
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import Any, BinaryIO

from PIL import Image, ImageOps, UnidentifiedImageError

from promptot.data.images.decoding_cost import TAGS, excess_of
from promptot.data.images.image_bytes import UnreadableImage, open_bytes
from promptot.data.images.pixels import from_array, to_rgb
from promptot.data.images.tag_sizes import overlapping_exif

__all__ = [
    "IMAGE_SUFFIXES",
    "ImageLike",
    "UnreadableImage",
    "image_hash",
    "is_image_name",
    "load_image",
]

ImageLike = Any
"""A path (or a place inside an archive or table, see `containers`), a PIL image, an array or tensor
(see `pixels.from_array`), or the bytes of an image file."""

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
_MAX_ASPECT = 200
_LARGE_PIXELS = 30_000_000
_large = threading.Lock()
"""Threads take turns with images larger than that, so that memory holds one of them at most."""


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image (case is ignored).

    Example:
        >>> is_image_name("Cat.JPG"), is_image_name("notes.txt")
        (True, False)
    """
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def load_image(image: ImageLike, name: str | None = None) -> Image.Image:
    """Read an image as 8-bit RGB, upright, transparent parts on white.

    The rotation that cameras note (EXIF) is applied, 16-bit greys are scaled to 8 bits, of an
    animation the first frame is taken. `archive.zip::member` reads from inside a zip file; see
    `promptot.data.images.image_bytes` for the other places.

    Args:
        image: see `ImageLike`.
        name: what to call an image that has no path.

    Raises:
        UnreadableImage: there is no such file, it is not an image, it is damaged, or it is too
            large or too narrow to work with (more than 180 megapixels, or 200 times as long as
            wide), or a JPEG of too many scans (see `decoding_cost`). It never waits: pipes and
            devices are refused unopened.
    """
    called = name or name_of(image)
    with as_unreadable(called):
        if isinstance(image, str | os.PathLike):
            with open_bytes(os.fspath(image)) as file:
                return _decode(file, called)
        if isinstance(image, bytes | bytearray | memoryview):
            if not image:
                raise UnreadableImage(called, "the file is empty")
            return _decode(io.BytesIO(image), called)
        if image is None:
            raise UnreadableImage(called, "there is no image")
        try:
            pixels = image if isinstance(image, Image.Image) else from_array(image)
            return _from_pillow(pixels, called)
        except ValueError as error:  # its text says why
            raise UnreadableImage(called, str(error)) from error


def image_hash(image: ImageLike, name: str | None = None) -> str:
    """SHA-256 by which an image is known: of its file's bytes, whatever the file is called.

    An image that is in no file is known by its pixels.

    Raises:
        UnreadableImage: there is no such file, or it can't be read.
    """
    digest = hashlib.sha256()
    if isinstance(image, bytes | bytearray | memoryview):
        digest.update(image)
    elif isinstance(image, str | os.PathLike):
        with as_unreadable(name or name_of(image)), open_bytes(os.fspath(image)) as file:
            digest = hashlib.file_digest(file, "sha256")
    else:
        pixels = load_image(image, name)
        digest.update(f"{pixels.width} x {pixels.height} RGB ".encode())
        digest.update(pixels.tobytes())
    return digest.hexdigest()


def name_of(image: ImageLike) -> str:
    """A path as text; what is in no file is called "image"."""
    return os.fspath(image) if isinstance(image, str | os.PathLike) else "image"


@contextlib.contextmanager
def as_unreadable(name: str) -> Iterator[None]:
    """Whatever goes wrong with an image, in one kind of error.

    Decoders and other people's data sets raise anything at all, which means the same to the caller.

    Args:
        name: what the image is called.

    Raises:
        UnreadableImage: under this name.
    """
    try:
        yield
    except UnreadableImage as error:
        raise error if error.path == name else UnreadableImage(name, error.reason) from error
    except Exception as error:
        raise UnreadableImage(name, explain(error)) from error


def _decode(file: BinaryIO, name: str) -> Image.Image:
    if excess := excess_of(file):
        raise UnreadableImage(name, excess)
    try:
        image: Image.Image = Image.open(file, formats=_formats())
    except UnidentifiedImageError:
        file.seek(0)
        raise UnreadableImage(name, what_instead(file.read(512), _formats())) from None
    _check_size(image, name)
    large = image.width * image.height > _LARGE_PIXELS
    with _large if large else contextlib.nullcontext():
        return _read(image, file, name)


def _read(image: Image.Image, file: BinaryIO, name: str) -> Image.Image:
    image.load()
    if overlapping_exif(image.info):
        raise UnreadableImage(name, TAGS)
    try:
        ImageOps.exif_transpose(image, in_place=True)
    except Exception:  # a damaged EXIF block must not cost the picture
        file.seek(0)
        image = Image.open(file, formats=_formats())
        image.load()
    return to_rgb(image)


def _from_pillow(image: Image.Image, name: str) -> Image.Image:
    """An image in memory; it is left as it is."""
    _check_size(image, name)
    turned = None
    with contextlib.suppress(Exception):  # a damaged EXIF block, as above
        turned = ImageOps.exif_transpose(image)
    return to_rgb(turned or image)


def _check_size(image: Image.Image, name: str) -> None:
    width, height = image.size
    if width * height > _MAX_PIXELS:
        raise UnreadableImage(name, f"{width} × {height} pixels are too many")
    if max(width, height) > _MAX_ASPECT * min(width, height):
        raise UnreadableImage(name, f"{width} × {height} pixels are too narrow a strip")


@lru_cache(maxsize=1)
def _formats() -> list[str]:
    Image.init()
    if "AVIF" not in Image.OPEN:  # Pillow reads it itself from 11.3 on
        with contextlib.suppress(ImportError):
            import_module("pillow_avif")
    with contextlib.suppress(ImportError):
        import_module("pillow_heif").register_heif_opener()
    return [name for name in _FORMATS if name in Image.OPEN]


def what_instead(head: bytes, formats: Collection[str]) -> str:
    """What a file that is no image seems to be.

    Args:
        head: its first bytes.
        formats: those that are read here, as Pillow calls them.
    """
    if head.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the image itself (run 'git lfs pull')"
    if head[4:8] == b"ftyp" and head[8:12] in {b"heic", b"heix", b"mif1", b"msf1", b"hevc"}:
        return _without_plugin("HEIC", "HEIF" in formats)
    if head[4:8] == b"ftyp" and head[8:12] in {b"avif", b"avis"}:
        return _without_plugin("AVIF", "AVIF" in formats)
    if head.lstrip()[:1] == b"<":
        return "it holds HTML, SVG or XML text, not a pixel image"
    controls = any(byte < 9 or 13 < byte < 32 for byte in head)
    if not controls and sum(byte > 127 for byte in head) * 4 < len(head):
        return "it holds text, not an image"
    return "it is not an image of a known format"


def _without_plugin(kind: str, known: bool) -> str:
    cure = "it can't be decoded" if known else "pip install 'promptot[data]', or convert it to JPEG"
    return f"it is a {kind} photo; {cure}"


def explain(error: Exception) -> str:
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
