"""Small files that ask for hours of decoding are refused at once, and no honest image is."""

from __future__ import annotations

import io
import random
import struct
import time
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from promptot.data.images.decoding_cost import MOST_SCANNED, MOST_SCANS, excess_of
from promptot.data.images.read_image import UnreadableImage, load_image

SOS, EOI = b"\xff\xda", b"\xff\xd9"


def encoded(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int = 160, height: int = 120) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


def bomb(repeats: int, width: int = 1600, height: int = 1200, kind: str = "header") -> bytes:
    """A progressive JPEG whose last scan, or the header of it alone, comes again and again."""
    content = encoded(Image.new("L", (width, height), 90), progressive=True)
    start = content.rindex(SOS)
    scan = content[start:-2] if kind == "scan" else content[start : start + 10]
    return content[:-2] + scan * repeats + EOI


@pytest.mark.parametrize("kind", ["header", "scan"])
def test_scans_without_end(tmp_path: Path, kind: str) -> None:
    began = time.monotonic()
    for content in (bomb(6000, 4000, 4000, kind), bomb(200_000, 4000, 4000, kind)):
        (tmp_path / "a.jpg").write_bytes(content)
        for image in (content, tmp_path / "a.jpg"):
            with pytest.raises(UnreadableImage, match="comes in more than 100 scans"):
                load_image(image)
    assert time.monotonic() - began < 10


def test_as_many_as_are_allowed_take_bearable_time() -> None:
    allowed = bomb(MOST_SCANS - 6, kind="scan")
    assert allowed.count(SOS) == MOST_SCANS
    began = time.monotonic()
    assert load_image(allowed).size == (1600, 1200)
    assert time.monotonic() - began < 10
    with pytest.raises(UnreadableImage, match="scans"):
        load_image(bomb(MOST_SCANS - 5, kind="scan"))


def test_larger_images_may_have_fewer() -> None:
    side = 6000
    most = MOST_SCANNED // side**2
    assert most < MOST_SCANS
    own = bomb(0, side, side).count(SOS)
    assert excess_of(io.BytesIO(bomb(most - own, side, side))) is None
    assert "scans" in (excess_of(io.BytesIO(bomb(most - own + 1, side, side))) or "")
    assert MOST_SCANNED // 180_000_000 >= 16  # what the largest images have is far below


def hidden(before: bytes) -> bytes:
    """Scans behind what a careless count would skip or stop at."""
    content = encoded(Image.new("L", (1600, 1200), 90), progressive=True)
    start = content.rindex(SOS)
    scan = content[start:-2]
    return content[:start] + scan + before + scan * 4000 + EOI


@pytest.mark.parametrize(
    "before",
    [
        b"\x00" * 70_000, b"\xff\x00" * 500, b"\xff" * 500, b"\xff\xd0\xff\xd7", b"\xff\x01",
        b"\xff\xfe\x00\x02", b"\xff\xe1\x00\x08\xff\xd9\xff\xd9ab", b"\xff\x02\x00\xfe",
        b"\xff\xbf\xff\xff", b"\xff\xdd\x00\x04\x00\x01",
    ],
)  # fmt: skip
def test_no_scan_hides(before: bytes) -> None:
    assert excess_of(io.BytesIO(hidden(before))) is not None
    began = time.monotonic()
    with pytest.raises(UnreadableImage):
        load_image(hidden(before))
    assert time.monotonic() - began < 3


def test_a_sequential_jpeg_has_scans_too() -> None:
    """Where the first scan lacks a component, libjpeg reads on to the end."""
    content = encoded(Image.new("RGB", (1600, 1200), "teal"), subsampling=0)
    start = content.index(SOS)
    frame = content.index(b"\xff\xc0")
    components = [content[frame + 10 + 3 * n] for n in range(3)]
    scans = b"".join(
        SOS + b"\x00\x08\x01" + bytes([component, 0, 0, 63, 0]) + b"\x00" * 9
        for component in components
    )
    assert excess_of(io.BytesIO(content[:start] + scans + EOI)) is None
    assert "scans" in (excess_of(io.BytesIO(content[:start] + scans * 40 + EOI)) or "")


def test_parts_without_end() -> None:
    content = encoded(noise())
    parts = content[:2] + b"\xff\xfe\x00\x02" * 1_000_000 + content[2:]
    began = time.monotonic()
    with pytest.raises(UnreadableImage, match="parts"):
        load_image(parts)
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 0}])
def test_honest_images_are_read(options: dict[str, object], tmp_path: Path) -> None:
    thumbnail = encoded(noise(40, 30), progressive=True)
    exif = b"Exif\0\0" + thumbnail + b"\xff\xda" * 300  # scans inside a segment are none
    for image in (noise(), noise(900, 700), noise(40, 30).convert("L")):
        content = encoded(image, quality=95, exif=exif, icc_profile=bytes(300_000), **options)
        for more in (b"", SOS * 5000, bytes(random.Random(0).randbytes(300_000))):  # a movie behind
            assert excess_of(io.BytesIO(content + more)) is None
            assert load_image(content + more).size == image.size
    mpo = encoded(noise(), "MPO", save_all=True, append_images=[noise()] * 120, progressive=True)
    assert excess_of(io.BytesIO(mpo)) is None


def test_it_does_not_matter_where_the_file_is_cut_for_reading() -> None:
    """The first 64 kB are read alone."""
    plain = encoded(noise(), progressive=True)
    for size in range(65_500, 65_560):
        filled = plain[:2] + b"\xff\xfe" + struct.pack(">H", 65_000) + bytes(64_998)
        filled += b"\xff\xfe" + struct.pack(">H", size - 65_004) + bytes(size - 65_006) + plain[2:]
        assert excess_of(io.BytesIO(filled)) is None
        start = filled.rindex(SOS)
        many = filled[:start] + filled[start:-2] * 101 + EOI
        assert excess_of(io.BytesIO(many)) is not None


def test_nonsense_is_left_to_the_decoder() -> None:
    generator = random.Random(1)
    good = encoded(noise(), progressive=True)
    for content in (b"", b"\xff", b"\xff\xd8", b"\xff\xd8\xff", b"\xff\xd8\xff\xda", good[:300]):
        assert excess_of(io.BytesIO(content)) is None
    for _ in range(300):
        broken = bytearray(good)
        for _ in range(8):
            broken[generator.randrange(3, len(broken))] = generator.choice([0, 255, 0xDA, 0xC2, 1])
        file = io.BytesIO(broken)
        excess_of(file)
        assert file.tell() == 0


# other formats that could ask for much


def png(*chunks: bytes) -> bytes:
    good = encoded(Image.new("RGB", (40, 30), "teal"), "PNG")
    return good[:33] + b"".join(chunks) + good[33:]


def chunk(name: bytes, content: bytes) -> bytes:
    check = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + check


def tiff(ifds: int = 1, jpeg: bytes | None = None) -> bytes:
    """So many pages of 8 × 8 greys, or one that is a JPEG of 1600 × 1200."""
    width, height = (8, 8) if jpeg is None else (1600, 1200)
    data = bytes(64) if jpeg is None else jpeg
    tags = [(256, width), (257, height), (258, 8), (259, 1 if jpeg is None else 7), (262, 1)]
    size = 2 + 12 * (len(tags) + 4) + 4
    tags += [(273, 8 + size * ifds), (277, 1), (278, height), (279, len(data))]
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    pages = [
        struct.pack("<H", len(tags)) + entries
        + struct.pack("<I", 8 + size * (n + 1) if n + 1 < ifds else 0)
        for n in range(ifds)
    ]  # fmt: skip
    return b"II*\0\x08\0\0\0" + b"".join(pages) + data


def frames(kind: str) -> Callable[[], bytes]:
    images = [Image.new("RGB", (300, 300), (n % 256, n // 256, 9)) for n in range(300)]
    return lambda: encoded(images[0], kind, save_all=True, append_images=images[1:])


def gif(extension: bytes) -> bytes:
    good = encoded(Image.new("P", (40, 30), 3), "GIF")
    start = 13 + (3 * (2 << (good[10] & 7)) if good[10] & 0x80 else 0)
    return good[:start] + extension + good[start:]


BOMBS: dict[str, tuple[Callable[[], bytes], bool]] = {
    "iCCP of 1 GB": (
        lambda: png(chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 24), 9) * 64)), False),
    "zTXt of 16 MB": (
        lambda: png(chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 24), 9))), False),
    "zTXt of 1 MB each": (
        lambda: png(*[chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 20), 9))] * 2000), False),
    "empty IDAT": (lambda: png(*[chunk(b"IDAT", b"")] * 100_000), True),
    "tEXt": (lambda: png(*[chunk(b"tEXt", b"a\0b")] * 100_000), True),
    "pages": (lambda: tiff(100_000), True),
    "scans in a TIFF": (lambda: tiff(jpeg=bomb(3000, kind="scan")), False),
    "a GIF comment": (lambda: gif(b"\x21\xfe" + b"\x01x" * 500_000 + b"\0"), False),
    "GIF comments": (lambda: gif(b"\x21\xfe\x01x\x00" * 200_000), False),
    "GIF frames": (frames("GIF"), True),
    "WebP frames": (frames("WEBP"), True),
    "APNG frames": (frames("PNG"), True),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_of_other_formats(name: str) -> None:
    """Only the first frame or page is read, and what is inflated has an end."""
    make, readable = BOMBS[name]
    content = make()
    began = time.monotonic()
    if readable:
        load_image(content)
    else:
        with pytest.raises(UnreadableImage):
            load_image(content)
    assert time.monotonic() - began < 3  # some tenths of a second on a quiet machine


def test_a_run_leaves_it_out_and_names_it(tmp_path: Path) -> None:
    """As `fit`, `predict` and `data` read images."""
    from promptot.data import find_unreadable, load_folder

    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        noise().save(tmp_path / label / "good.jpg")
    (tmp_path / "a" / "bomb.jpg").write_bytes(bomb(6000))
    examples = load_folder(tmp_path).train
    (found,) = find_unreadable(examples)
    assert found.path.endswith("bomb.jpg")
    assert "scans" in found.reason
