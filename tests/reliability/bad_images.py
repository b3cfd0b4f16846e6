"""Image files of every odd kind that people have, and what is to become of each."""

from __future__ import annotations

import io
import os
import struct
import sys
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin, features

RED, GREEN, BLUE, YELLOW = (220, 30, 30), (30, 180, 60), (30, 50, 210), (230, 210, 40)
COLOURS = (RED, GREEN, BLUE, YELLOW)  # of the quarters: top left, top right, bottom left, right
GREYS = tuple((int(0.299 * r + 0.587 * g + 0.114 * b),) * 3 for r, g, b in COLOURS)
WHITE, BLACK = (255, 255, 255), (0, 0, 0)

Quarters = tuple[tuple[int, int, int], ...]


@dataclass(frozen=True)
class Case:
    """A file: its quarters' colours if it is to be read, or a part of the reason if it is not."""

    path: Path
    quarters: Quarters | None = None
    reason: str = ""


def picture(width: int = 48, height: int = 32) -> Image.Image:
    image = Image.new("RGB", (width, height))
    for number, colour in enumerate(COLOURS):
        left, top = number % 2 * width // 2, number // 2 * height // 2
        image.paste(colour, (left, top, left + width // 2, top + height // 2))
    return image


def encoded(format_: str, image: Image.Image | None = None, **options: Any) -> bytes:
    buffer = io.BytesIO()
    (picture() if image is None else image).save(buffer, format_, **options)
    return buffer.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *extra: bytes) -> bytes:
    """A PNG written by hand."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [png_chunk(b"IHDR", header), *extra, png_chunk(b"IDAT", zlib.compress(rows, 9))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts) + png_chunk(b"IEND", b"")


def make_corpus(folder: Path) -> list[Case]:
    """Write all the files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    return [*_readable(folder), *_odd_names(folder), *_refused(folder), *_no_files(folder)]


def _writer(folder: Path) -> Callable[..., Case]:
    def write(
        name: str, content: bytes, quarters: Quarters | None = None, reason: str = ""
    ) -> Case:
        path = folder / name
        path.write_bytes(content)
        return Case(path, quarters, reason)

    return write


def _readable(folder: Path) -> Iterator[Case]:
    write = _writer(folder)
    for suffix, format_, options in (
        ("png", "PNG", {}),
        ("jpg", "JPEG", {"quality": 95}),
        ("webp", "WEBP", {"quality": 95}),
        ("bmp", "BMP", {}),
        ("tif", "TIFF", {}),
        ("ppm", "PPM", {}),
        ("tga", "TGA", {}),
        ("jp2", "JPEG2000", {}),
    ):
        yield write(f"plain.{suffix}", encoded(format_, **options), COLOURS)
    if features.check("avif"):
        yield write("plain.avif", encoded("AVIF", quality=95), COLOURS)
    yield write("plain.gif", encoded("GIF"), COLOURS)
    yield write("plain.ico", encoded("ICO", picture(48, 48)), COLOURS)
    yield write("progressive.jpg", encoded("JPEG", quality=95, progressive=True), COLOURS)
    yield write("subsampled.jpg", encoded("JPEG", quality=90, subsampling=2), COLOURS)
    yield write("lzw.tif", encoded("TIFF", compression="tiff_lzw"), COLOURS)
    yield write("jpeg-in.tif", encoded("TIFF", compression="jpeg", quality=95), COLOURS)
    yield write("lossless.webp", encoded("WEBP", lossless=True), COLOURS)
    yield write("mpo.jpg", encoded("MPO", quality=95), COLOURS)
    pixels = np.asarray(picture())
    planes = b"".join(pixels[..., c].tobytes() for c in range(3))
    yield write("channels-first.tif", _planar_tiff(48, 32, planes), COLOURS)
    top_down = bytearray(encoded("BMP", picture().transpose(Image.Transpose.FLIP_TOP_BOTTOM)))
    top_down[22:26] = struct.pack("<i", -32)
    yield write("top-down.bmp", bytes(top_down), COLOURS)

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    for orientation, turn in turns.items():
        exif = Image.Exif()
        exif[0x0112] = orientation
        stored = picture().transpose(turn)
        content = encoded("JPEG", stored, quality=95, exif=exif)
        yield write(f"rotated-{orientation}.jpg", content, COLOURS)
    broken_exif = b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01garbage"
    yield write("broken-exif.jpg", encoded("JPEG", quality=95, exif=broken_exif), COLOURS)
    exif = Image.Exif()
    exif[0x0112] = 99
    yield write("no-such-rotation.jpg", encoded("JPEG", quality=95, exif=exif), COLOURS)
    for suffix, format_ in (("jpg", "JPEG"), ("png", "PNG")):
        content = encoded(format_, icc_profile=b"\0\xff not a profile" * 9)
        yield write(f"broken-profile.{suffix}", content, COLOURS)

    frames = [Image.new("RGB", (48, 32), colour) for colour in (BLACK, WHITE)]
    for suffix, format_ in (("gif", "GIF"), ("webp", "WEBP"), ("png", "PNG"), ("tif", "TIFF")):
        content = encoded(format_, save_all=True, append_images=frames)
        yield write(f"animated.{suffix}", content, COLOURS)

    yield write("cmyk.jpg", encoded("JPEG", picture().convert("CMYK"), quality=95), COLOURS)
    yield write("cmyk.tif", encoded("TIFF", picture().convert("CMYK")), COLOURS)
    yield write("lab.tif", encoded("TIFF", Image.new("LAB", (8, 8), (255, 128, 128))), (WHITE,) * 4)
    yield write("grey.png", encoded("PNG", picture().convert("L")), GREYS)
    yield write("grey.jpg", encoded("JPEG", picture().convert("L"), quality=95), GREYS)
    bits = Image.new("1", (8, 8), 1)
    yield write("one-bit.png", encoded("PNG", bits), (WHITE,) * 4)
    yield write("one-bit-fax.tif", encoded("TIFF", bits, compression="group4"), (WHITE,) * 4)
    yield write("palette.png", encoded("PNG", picture().quantize(4)), COLOURS)
    clear = Image.new("RGBA", (8, 8), (0, 0, 0, 0))
    yield write("clear.png", encoded("PNG", clear), (WHITE,) * 4)
    yield write("clear.webp", encoded("WEBP", clear, lossless=True), (WHITE,) * 4)
    yield write("clear-grey.png", encoded("PNG", clear.convert("LA")), (WHITE,) * 4)
    palette = Image.new("P", (8, 8), 1)
    palette.putpalette([*RED, *BLUE])
    yield write("palette-clear.png", encoded("PNG", palette, transparency=1), (WHITE,) * 4)
    yield write("palette-clear.gif", encoded("GIF", palette, transparency=1), (WHITE,) * 4)
    keyed = encoded("PNG", Image.new("RGB", (8, 8), RED), transparency=RED)
    yield write("colour-key.png", keyed, (WHITE,) * 4)

    half = np.full((8, 8), 32896, np.uint16)
    yield write("grey-16.png", encoded("PNG", Image.fromarray(half)), ((128,) * 3,) * 4)
    yield write("grey-16.tif", encoded("TIFF", Image.fromarray(half)), ((128,) * 3,) * 4)
    deep = b"".join(b"\0" + struct.pack(">3H", 65535, 0, 32896) * 8 for _ in range(8))
    yield write("rgb-16.png", png(8, 8, 16, 2, deep), ((255, 0, 128),) * 4)
    whole = Image.fromarray(np.full((8, 8), 32896, np.int32))
    yield write("grey-32.tif", encoded("TIFF", whole), ((128,) * 3,) * 4)
    negative = Image.fromarray(np.full((8, 8), -5, np.int32))
    yield write("negative.tif", encoded("TIFF", negative), (BLACK,) * 4)
    for name, value, grey in (("float", 0.5, 128), ("nan", np.nan, 0), ("infinite", np.inf, 0)):
        content = encoded("TIFF", Image.fromarray(np.full((8, 8), value, np.float32)))
        yield write(f"{name}.tif", content, ((grey,) * 3,) * 4)

    yield write("one-pixel.png", encoded("PNG", Image.new("RGB", (1, 1), RED)), (RED,) * 4)
    yield write("long.png", encoded("PNG", picture(2, 200)), COLOURS)
    yield write("40000-wide.png", encoded("PNG", Image.new("1", (40_000, 250), 1)), (WHITE,) * 4)
    yield write("more-behind.jpg", encoded("JPEG", quality=95) + b"\0garbage" * 99, COLOURS)
    note = PngImagePlugin.PngInfo()
    note.add_text("Comment", "x" * 500_000, zip=True)
    yield write("long-comment.png", encoded("PNG", pnginfo=note), COLOURS)


def _odd_names(folder: Path) -> Iterator[Case]:
    write = _writer(folder)
    good = encoded("PNG")
    yield write("png-called.jpg", good, COLOURS)
    yield write("jpeg-called.png", encoded("JPEG", quality=95), COLOURS)
    for name in ("UPPER.PNG", "ünïcode 🐼.png", "-dash.png", "100%.png", "[a-z]*.png", "a::b.png"):
        yield write(name, good, COLOURS)
    yield write("x" * 251 + ".png", good, COLOURS)
    if sys.platform != "win32":
        yield write("new\nline.png", good, COLOURS)
        yield write("colour\x1b[31m.png", good, COLOURS)
    if sys.platform == "linux":
        yield write(os.fsdecode(b"no-text-\xff.png"), good, COLOURS)


def _refused(folder: Path) -> Iterator[Case]:
    write = _writer(folder)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    for suffix, format_ in (
        ("png", "PNG"),
        ("jpg", "JPEG"),
        ("webp", "WEBP"),
        ("gif", "GIF"),
        ("tif", "TIFF"),
        ("bmp", "BMP"),
        ("ppm", "PPM"),
        ("jp2", "JPEG2000"),
    ):
        content = encoded(format_, noise)
        yield write(f"truncated.{suffix}", content[: len(content) // 2])
    yield write("header-only.jpg", encoded("JPEG")[:4])
    yield write("empty.png", b"", reason="empty")
    yield write("text.png", b"just some notes\n", reason="text")
    yield write("page.jpg", b"<!DOCTYPE html><html>404</html>", reason="HTML")
    yield write("drawing.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", reason="SVG")
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n"
    yield write("pointer.jpg", pointer, reason="git lfs pull")
    yield write("archive.png", b"PK\x03\x04" + bytes(60), reason="known format")
    yield write("document.jpg", b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n" + bytes(60))
    yield write("postscript.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    yield write("array.png", b"\x93NUMPY\x01\x00v\x00{'descr': '<f4'}" + bytes(60))
    yield write("random.png", bytes(range(256)), reason="known format")
    yield write("bomb.png", png(40_000, 40_000, 1, 0, bytes(5001) * 100), reason="pixels")
    yield write("bomb.ppm", b"P6\n50000 50000\n255\n", reason="pixels")
    yield write("many.png", png(14_000, 14_000, 1, 0, bytes(1751) * 9), reason="pixels")
    yield write("strip.png", encoded("PNG", Image.new("L", (1, 20_000))), reason="narrow")
    yield write("strip.jpg", encoded("JPEG", Image.new("L", (20_000, 50))), reason="narrow")
    yield write("no-width.png", png(0, 0, 8, 2, b""))
    checked = bytearray(encoded("PNG", noise))
    checked[len(checked) // 2] ^= 0xFF
    yield write("wrong-checksum.png", bytes(checked))
    scans = encoded("JPEG", picture(4000, 4000).convert("L"), progressive=True)
    scan = scans[scans.rindex(b"\xff\xda") : -2]
    yield write("scan-bomb.jpg", scans[:-2] + scan * 6000 + b"\xff\xd9", reason="scans")
    text_bomb = png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(1 << 27), 9))
    yield write("text-bomb.png", png(8, 8, 8, 2, bytes(200), text_bomb))
    yield write("endless.tif", b"II*\0\x08\0\0\0" + struct.pack("<H", 0) + struct.pack("<I", 8))
    yield write("nonsense.gif", b"GIF89a" + struct.pack("<HHBBB", 8, 8, 0x80, 0, 0) + bytes(40))
    yield write("vast.gif", b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b";")


def _no_files(folder: Path) -> Iterator[Case]:
    good = folder / "plain.png"
    if sys.platform == "win32":
        return
    link = folder / "link.png"
    link.symlink_to(good)
    yield Case(link, COLOURS)
    for name, target, reason in (
        ("dangling.png", "nowhere.png", "no such file"),
        ("loop.png", "loop.png", "symbolic links"),
        ("device.png", os.devnull, "device"),
        ("endless.png", "/dev/zero", "device"),
    ):
        (folder / name).symlink_to(target)
        yield Case(folder / name, reason=reason)
    os.mkfifo(folder / "pipe.png")
    yield Case(folder / "pipe.png", reason="pipe")
    if os.geteuid() != 0:
        forbidden = folder / "forbidden.png"
        forbidden.write_bytes(good.read_bytes())
        forbidden.chmod(0)
        yield Case(forbidden, reason="permission denied")


def _planar_tiff(width: int, height: int, planes: bytes) -> bytes:
    """An RGB TIFF that stores one channel after the other."""
    size = width * height
    entries = [
        (256, 3, 1, width),
        (257, 3, 1, height),
        (258, 3, 3, 122),
        (259, 3, 1, 1),
        (262, 3, 1, 2),
        (273, 4, 3, 128),
        (277, 3, 1, 3),
        (278, 3, 1, height),
        (279, 4, 3, 140),
    ]
    entries.append((284, 3, 1, 2))  # PlanarConfiguration: separate
    start = 8 + 2 + 12 * len(entries) + 4
    bits, offsets, counts, data = start, start + 6, start + 18, start + 30
    places = {258: bits, 273: offsets, 279: counts}
    table = b"".join(
        struct.pack("<HHII", tag, kind, count, places.get(tag, value))
        for tag, kind, count, value in entries
    )
    return (
        b"II*\0\x08\0\0\0"
        + struct.pack("<H", len(entries))
        + table
        + bytes(4)
        + struct.pack("<3H", 8, 8, 8)
        + struct.pack("<3I", data, data + size, data + 2 * size)
        + struct.pack("<3I", size, size, size)
        + planes
    )
