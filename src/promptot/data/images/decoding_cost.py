"""How much work an image asks for, counted before it is decoded.

A progressive JPEG comes in scans, and each goes over all pixels again. Its size says nothing of
that: a scan may be twenty bytes long, so that a small file keeps a decoder busy for hours. Encoders
write about ten scans, one that tries hard some dozens. More than a hundred are refused (as many as
libtiff allows in a TIFF), and fewer where the image is so large that they add up all the same.

Pillow joins the pieces of GIF comments (before version 13) and takes the comments of text PNM files
out one by one, each time copying all that it has; and inflates every colour profile of a PNG. Tags
of TIFF files and of EXIF data may all name one place (see `tag_sizes`).
"""

from __future__ import annotations

import io
import re
from typing import BinaryIO

from promptot.data.images.tag_sizes import overlapping_tags

MOST_SCANS = 100
MOST_SCANNED = 3_000_000_000
"""Pixels times scans: a hundred scans of 30 megapixels, or sixteen of 180; some 5 s of work."""
MOST_SEGMENTS = 50_000
"""Parts of a file between its scans; each costs time, and may be four bytes long."""
MOST_GIF_COMMENTS = 20_000
"""Pieces of comments before the first frame, of up to 255 bytes: 5 MB in all."""
MOST_PNM_COMMENTS = 10_000
MOST_PROFILES = 8
"""Colour profiles of a PNG, of up to 1 MB each; a true one has at most one."""
TAGS = "its tags claim far more than is there"

_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")  # what is neither a byte 255 nor a restart
_SOF, _NOT_SOF = range(0xC0, 0xD0), (0xC4, 0xC8, 0xCC)
_IN_ONE_GO = (0xC0, 0xC1)  # frames that need no second scan where the first has all components
_SOI, _EOI, _SOS, _APP1 = 0xD8, 0xD9, 0xDA, 0xE1
_COMMENT = re.compile(rb"#[^\r\n]*")


def excess_of(file: BinaryIO) -> str | None:
    """Why an image is more work than one can need; None if it is not, or of another format.

    The file is read from its start, and put back there. What it finds is what decoders will.
    """
    file.seek(0)
    head = file.read(4)
    file.seek(0)
    try:
        if head[:3] == b"\xff\xd8\xff":
            return _jpeg_excess(file)
        if head == b"GIF8":
            return _gif_excess(file)
        if head == b"\x89PNG":
            return _png_excess(file)
        if head[:2] in (b"P1", b"P2", b"P3"):
            return _pnm_excess(file)
        return TAGS if overlapping_tags(file) else None
    finally:
        file.seek(0)


def _gif_excess(file: BinaryIO) -> str | None:
    flags = file.read(13)[10:11]
    if flags and flags[0] & 0x80:
        file.seek(3 << (flags[0] & 7) + 1, io.SEEK_CUR)
    comments = 0
    while (byte := file.read(1)) not in (b"", b",", b";"):  # the first frame, or none
        if byte != b"!":
            continue
        comment = file.read(1) == b"\xfe"
        comments += comment
        while (size := file.read(1)) not in (b"", b"\0"):
            file.seek(size[0], io.SEEK_CUR)
            comments += comment
        if comments > MOST_GIF_COMMENTS:
            return f"its comments come in more than {MOST_GIF_COMMENTS} pieces"
    return None


def _png_excess(file: BinaryIO) -> str | None:
    file.seek(8)
    profiles = 0
    while len(head := file.read(8)) == 8 and head[4:] != b"IEND":
        profiles += head[4:] == b"iCCP"
        if profiles > MOST_PROFILES:
            return f"it has more than {MOST_PROFILES} colour profiles"
        file.seek(int.from_bytes(head[:4], "big") + 4, io.SEEK_CUR)
    return None


def _pnm_excess(file: BinaryIO) -> str | None:
    comments = sum(1 for _ in _COMMENT.finditer(file.read()))
    if comments > MOST_PNM_COMMENTS:
        return f"it has more than {MOST_PNM_COMMENTS} comments"
    return None


def _jpeg_excess(file: BinaryIO) -> str | None:
    """What it finds is what libjpeg will: markers behind whatever does not belong, segments skipped
    by their lengths, nothing behind the end."""
    file.seek(2)
    exif = bytearray()
    excess = _scans_excess(file, exif)
    return excess or (TAGS if overlapping_tags(io.BytesIO(exif)) else None)


def _scans_excess(file: BinaryIO, exif: bytearray) -> str | None:
    """Why a JPEG has too many scans or parts, if it has; its EXIF data are added to `exif`."""
    content = file.read(1 << 16)
    whole = len(content) < 1 << 16
    start = scans = pixels = components = frame = 0
    for _ in range(MOST_SEGMENTS):
        found = _MARKER.search(content, start)
        if not whole and (found is None or found.end() + 20 > len(content)):
            content, whole = content + file.read(), True
            found = _MARKER.search(content, start)
        if found is None:
            return None
        marker, start = found[1][0], found.end()
        if marker == _EOI:
            return None
        if marker < _SOF.start or marker == _SOI:  # without a length
            continue
        segment = content[start : start + 8]
        if marker in _SOF and marker not in _NOT_SOF and len(segment) == 8:
            frame, components = marker, segment[7]
            height, width = (int.from_bytes(segment[i : i + 2], "big") for i in (3, 5))
            pixels = height * width
        if marker == _SOS and len(segment) > 2:
            scans += 1
            if frame in _IN_ONE_GO and segment[2] == components:
                return None
            if scans > MOST_SCANS or scans * pixels > MOST_SCANNED:
                return f"it comes in more than {scans - 1} scans, too many for its size"
        end = start + int.from_bytes(segment[:2], "big")
        if end > len(content) and not whole:
            content, whole = content + file.read(), True
        if marker == _APP1 and segment[2:] == b"Exif\0\0":
            exif += content[start + 8 : end]
        start = end
    return f"it has more than {MOST_SEGMENTS} parts"
