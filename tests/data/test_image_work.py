"""Small files of many kinds that would cost a decoder minutes or gigabytes are refused at once."""

from __future__ import annotations

import io
import struct
import time
import zlib
from collections.abc import Callable

import pytest
from PIL import Image

from promptot.data.images import decoding_cost
from promptot.data.images.decoding_cost import excess_of
from promptot.data.images.read_image import UnreadableImage, load_image
from promptot.data.images.tag_sizes import overlapping_exif, overlapping_tags

MEGABYTE = 1_000_000
TIFF = b"II*\0\x08\0\0\0"


def encoded(kind: str, mode: str = "RGB", **options: object) -> bytes:
    file = io.BytesIO()
    Image.new(mode, (40, 30), 3).save(file, kind, **options)
    return file.getvalue()


def gif(*before: bytes) -> bytes:
    """A GIF with parts before its first frame."""
    good = encoded("GIF", "P")
    start = 13 + (3 << (good[10] & 7) + 1 if good[10] & 0x80 else 0)
    return good[:start] + b"".join(before) + good[start:]


def extension(kind: int, content: bytes, size: int = 255) -> bytes:
    """In pieces of a size."""
    pieces = [content[start : start + size] for start in range(0, len(content), size)]
    return b"!" + bytes([kind]) + b"".join(bytes([len(p)]) + p for p in pieces) + b"\0"


def png(*chunks: tuple[bytes, bytes]) -> bytes:
    good = encoded("PNG")
    made = [
        struct.pack(">I", len(content)) + name + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks
    ]  # fmt: skip
    return good[:33] + b"".join(made) + good[33:]


def overlapping(size: int = MEGABYTE, tags: int = 2000, start: bytes = TIFF) -> bytes:
    """A TIFF of 8 × 8 greys whose further tags all name the same bytes."""
    order = "<" if start[:2] == b"II" else ">"
    data = 8 + 2 + 12 * (9 + tags) + 4
    image = [(256, 8), (257, 8), (258, 8), (259, 1), (262, 1), (273, data), (277, 1), (278, 8),
             (279, 64)]  # fmt: skip
    entries = [struct.pack(order + "HHII", tag, 4, 1, value) for tag, value in image]
    entries += [struct.pack(order + "HHII", 1000 + n, 7, size // 2, 8) for n in range(tags)]
    head = start + struct.pack(order + "H", len(entries)) + b"".join(entries) + bytes(4)
    return head + bytes(max(64, size - len(head)))


def nested() -> bytes:
    """The same in the directory that an EXIF tag leads to."""
    inner = overlapping()[8:]
    outer = TIFF + struct.pack("<HHHIII", 1, 0x8769, 4, 1, 26, 0)
    return outer + inner


def in_jpeg(exif: bytes) -> bytes:
    """EXIF data of any length, in segments that readers join."""
    good = encoded("JPEG")
    parts = [exif[start : start + 65_000] for start in range(0, len(exif), 65_000)]
    made = [b"\xff\xe1" + struct.pack(">H", len(p) + 8) + b"Exif\0\0" + p for p in parts]
    return good[:2] + b"".join(made) + good[2:]


def raw_profile() -> bytes:
    text = zlib.compress(f"\nexif\n{0:8}\n{overlapping(400_000).hex()}\n".encode())
    return png((b"zTXt", b"Raw profile type exif\0\0" + text))


PROFILE = b"x\0\0" + zlib.compress(bytes(1_000_000), 9)
BOMBS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a GIF comment": (lambda: gif(extension(254, bytes(MEGABYTE), 1)), "comments come in"),
    "GIF comments": (lambda: gif(extension(254, b"x") * 200_000), "comments come in"),
    "empty GIF comments": (lambda: gif(extension(254, b"") * 300_000), "comments come in"),
    "colour profiles": (lambda: png(*[(b"iCCP", PROFILE)] * 1000), "colour profiles"),
    "grey PNM": (lambda: b"P2\n900 900\n255\n" + b"#\n" * 500_000, "comments"),
    "bilevel PNM": (lambda: b"P1\n900 900\n" + b"1#\r" * 300_000, "comments"),
    "TIFF": (overlapping, "tags"),
    "big-endian TIFF": (lambda: overlapping(start=b"MM\0*\0\0\0\x08"), "tags"),
    "EXIF in a PNG": (lambda: png((b"eXIf", overlapping())), "tags"),
    "EXIF in a PNG's text": (raw_profile, "tags"),
    "EXIF in a WebP": (lambda: encoded("WEBP", exif=b"Exif\0\0" + overlapping()), "tags"),
    "EXIF in a JPEG": (lambda: in_jpeg(overlapping()), "tags"),
    "a directory within EXIF": (lambda: in_jpeg(nested()), "tags"),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_refused_at_once(name: str) -> None:
    make, reason = BOMBS[name]
    content = make()
    began = time.monotonic()
    with pytest.raises(UnreadableImage, match=reason):
        load_image(content)
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("fill", [1 << 16, 1_000_000])
@pytest.mark.parametrize("place", ["front", "end"])
def test_bytes_that_fill_a_jpeg_up(fill: int, place: str) -> None:
    """Bytes 255 before a marker mean nothing; looking for its end took time by their square."""
    good = encoded("JPEG")
    cut = 2 if place == "front" else len(good) - 2
    content = good[:cut] + b"\xff" * fill + good[cut:]
    began = time.monotonic()
    assert excess_of(io.BytesIO(content)) is None
    assert excess_of(io.BytesIO(content[: cut + fill])) is None  # and nothing behind
    assert time.monotonic() - began < 3


def test_what_encoders_write_is_read() -> None:
    exif = Image.Exif()
    exif[270], exif[274] = "text" * 12_000, 6
    exif.get_ifd(0x8769)[37510] = b"note" * 1000
    honest = [
        gif(extension(254, bytes(4_000_000))),
        gif(extension(254, b"a comment") * 1000, extension(255, b"XMP DataXMP" * 99_999, 40)),
        gif(b"junk" * 1000, extension(249, bytes(4)), extension(1, bytes(9000))),
        png((b"iCCP", b"x\0\0" + zlib.compress(bytes(3000)))),
        png(*[(b"IDAT", b"")] * 50_000),
        b"P2\n# a comment\n40 30\n255\n" + b"# a row\n3 4 5\n" * 400,
        *(encoded(kind, exif=exif) for kind in ("JPEG", "PNG", "WEBP", "TIFF")),
        encoded("TIFF", compression="jpeg"),
        encoded("TIFF", big_tiff=True),
        encoded("JPEG", exif=b"Exif\0\0"),
    ]
    for content in honest:
        assert excess_of(io.BytesIO(content)) is None
        assert sorted(load_image(content).size) == [30, 40]


def test_the_bounds_are_tight() -> None:
    most = decoding_cost.MOST_GIF_COMMENTS
    assert excess_of(io.BytesIO(gif(extension(254, bytes(most - 1), 1)))) is None
    assert excess_of(io.BytesIO(gif(extension(254, bytes(most), 1)))) is not None
    profiles = [(b"iCCP", PROFILE)] * decoding_cost.MOST_PROFILES
    assert excess_of(io.BytesIO(png(*profiles))) is None
    assert excess_of(io.BytesIO(png(*profiles, profiles[0]))) is not None
    lines = b"P3\n40 30\n255\n" + b"#\n" * decoding_cost.MOST_PNM_COMMENTS
    assert excess_of(io.BytesIO(lines)) is None
    assert excess_of(io.BytesIO(lines + b"#")) is not None


def test_nonsense_is_left_to_the_decoder() -> None:
    whole = [gif(extension(254, b"x" * 900)), png((b"eXIf", nested())), overlapping(2000, 3)]
    whole += [b"II+\0\x08\0\0\0" + b"\xff" * 40, b"MM\0*" + b"\xff" * 4, b"P1", b"GIF8", b"\x89PNG"]
    for content in whole:
        for end in [*range(min(len(content), 300)), len(content)]:
            file = io.BytesIO(content[:end])
            excess_of(file)
            assert file.tell() == 0
            overlapping_tags(file)
    for info in ({}, {"exif": None}, {"exif": b"Exif\0\0"}, {"Raw profile type exif": "\n\n\nxyz"}):
        assert not overlapping_exif(info)
