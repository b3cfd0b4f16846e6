"""How much the tags of a TIFF file or of EXIF data claim to hold, added up before they are read.

Each tag names a place and a size. Where thousands name the same megabyte, a reader that copies
them all (Pillow before version 13) needs memory by the tens of gigabytes.
"""

from __future__ import annotations

import contextlib
import io
import re
import struct
from typing import Any, BinaryIO

MOST_TIMES = 2
SPARE = 2**16
"""Tags may claim as many times the bytes that are there, and so many bytes; writers that share a
value among tags share a few bytes."""

_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_DIRECTORIES = (0x8769, 0x8825, 0xA005)
"""Tags that lead to a directory of their own: of EXIF, of places, of interoperability."""
_EXIF = re.compile(rb"(?:Exif\0\0){1,2}")
_PROFILE = "Raw profile type exif"


def overlapping_tags(file: BinaryIO) -> bool:
    """Whether tags claim far more than is there; False of what is no TIFF."""
    head = file.read(16)
    if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return False
    order, big = "<" if head[:2] == b"II" else ">", b"+" in head[:4]
    many, pointer, entry, inline = ("Q", "Q", "HHQ8s", 8) if big else ("H", "L", "HHL4s", 4)
    length = file.seek(0, io.SEEK_END)
    places = [struct.unpack_from(order + pointer, head + bytes(16), 8 if big else 4)[0]]
    claimed = 0
    for number in range(1 + len(_DIRECTORIES)):
        if number == len(places):
            break
        file.seek(min(places[number], length))
        (entries,) = struct.unpack_from(
            order + many, file.read(struct.calcsize(order + many)) + bytes(8)
        )
        size = struct.calcsize(order + entry)
        table = file.read(min(entries * size, length))
        whole = table[: len(table) // size * size]
        for tag, kind, count, value in struct.iter_unpack(order + entry, whole):
            (place,) = struct.unpack(order + pointer, value)
            if tag in _DIRECTORIES and place not in places:
                places.append(place)
            held = count * _SIZES.get(kind, 0)
            if held > inline and place + held <= length:  # nothing is read of another
                claimed += held
    return claimed > MOST_TIMES * length + SPARE


def overlapping_exif(info: dict[Any, Any]) -> bool:
    """The same of the EXIF data among what Pillow notes of an image."""
    exif, text = info.get("exif"), info.get(_PROFILE)
    if exif is None and isinstance(text, str):
        with contextlib.suppress(ValueError):  # of which Pillow makes nothing either
            exif = bytes.fromhex("".join(text.split("\n")[3:]))
    if not isinstance(exif, bytes):
        return False
    return overlapping_tags(io.BytesIO(_EXIF.sub(b"", exif[:12]) + exif[12:]))
