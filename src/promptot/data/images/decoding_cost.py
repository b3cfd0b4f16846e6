"""How much work a JPEG asks for, counted before it is decoded.

A progressive JPEG comes in scans, and each goes over all pixels again. Its size says nothing of
that: a scan may be twenty bytes long, so that a small file keeps a decoder busy for hours. Encoders
write about ten scans, one that tries hard some dozens. More than a hundred are refused (as many as
libtiff allows in a TIFF), and fewer where the image is so large that they add up all the same.
"""

from __future__ import annotations

import re
from typing import BinaryIO

MOST_SCANS = 100
MOST_SCANNED = 3_000_000_000
"""Pixels times scans: a hundred scans of 30 megapixels, or sixteen of 180; some 5 s of work."""
MOST_SEGMENTS = 50_000
"""Parts of a file between its scans; each costs time, and may be four bytes long."""

_MARKER = re.compile(rb"\xff+([^\x00\xff\xd0-\xd7])")  # neither a byte 255 nor a restart
_SOF, _NOT_SOF = range(0xC0, 0xD0), (0xC4, 0xC8, 0xCC)
_IN_ONE_GO = (0xC0, 0xC1)  # frames that need no second scan where the first has all components
_SOI, _EOI, _SOS = 0xD8, 0xD9, 0xDA


def excess_of(file: BinaryIO) -> str | None:
    """Why a JPEG is more work than an image can need; None if it is not, or is no JPEG.

    The file is read from its start, and put back there. What it finds is what libjpeg will: markers
    behind whatever does not belong, segments skipped by their lengths, nothing behind the end.
    """
    file.seek(0)
    try:
        if file.read(3) != b"\xff\xd8\xff":
            return None
        file.seek(2)
        return _excess(file)
    finally:
        file.seek(0)


def _excess(file: BinaryIO) -> str | None:
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
        start += int.from_bytes(segment[:2], "big")
        if start > len(content) and not whole:
            content, whole = content + file.read(), True
    return f"it has more than {MOST_SEGMENTS} parts"
