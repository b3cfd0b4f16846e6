"""Parquet pages that claim gigabytes are refused; an Arrow file may be cut short while in use."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from promptot.data.arrow_columns import ColumnFile, read_cell
from promptot.data.parquet_pages import UNSUSPICIOUS, largest_page
from promptot.errors import PromptotError
from promptot.files.file_version import times_of
from promptot.files.reading import Unreadable

pa = pytest.importorskip("pyarrow")
pq = pytest.importorskip("pyarrow.parquet")

IMAGES = [bytes([number]) * 3000 for number in range(50)]


def write(path: Path, images: list[Any], **options: Any) -> Path:
    labels = [f"label {number % 3}" for number in range(len(images))]
    pq.write_table(pa.table({"image": images, "label": labels}), path, **options)
    return path


def cell(path: Path, row: int, column: str = "image") -> Any:
    state = path.stat()
    return read_cell(str(path), times_of(state), state.st_size, column, row)


def page_sizes(path: Path) -> list[int]:
    metadata = pq.read_metadata(path)
    with path.open("rb") as file:
        return [
            largest_page(file, metadata.row_group(group).column(column))
            for group in range(metadata.num_row_groups)
            for column in range(metadata.num_columns)
        ]


@pytest.mark.parametrize("compression", ["none", "snappy", "gzip", "zstd", "brotli", "lz4"])
@pytest.mark.parametrize("version", ["1.0", "2.0"])
@pytest.mark.parametrize("dictionary", [False, True])
def test_honest_files(tmp_path: Path, compression: str, version: str, dictionary: bool) -> None:
    path = write(
        tmp_path / "a.parquet", IMAGES, compression=compression, data_page_version=version,
        use_dictionary=dictionary, row_group_size=20, data_page_size=10_000,
        write_page_checksum=True, write_page_index=dictionary,
    )  # fmt: skip
    assert all(0 < size < 200_000 for size in page_sizes(path))
    assert ColumnFile(path).values("label")[:4] == ["label 0", "label 1", "label 2", "label 0"]
    assert [cell(path, row) for row in range(50)] == IMAGES


def test_pages_that_grow_a_thousandfold(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [bytes(2 * UNSUSPICIOUS)] * 3, compression="zstd")
    assert path.stat().st_size < 100_000
    with pytest.raises(Unreadable, match="claims to unpack to"):
        cell(path, 0)
    assert ColumnFile(path).values("label") == ["label 0", "label 1", "label 2"]
    path = tmp_path / "b.parquet"
    pq.write_table(pa.table({"label": ["x" * 2 * UNSUSPICIOUS]}), path, compression="gzip")
    with pytest.raises(PromptotError, match="claims to unpack to"):
        ColumnFile(path).values("label")


def forge(path: Path, name: str, old: bytes, new: bytes) -> None:
    """Put other bytes into the header of a column's first page."""
    metadata = pq.read_metadata(path)
    (column,) = [
        metadata.row_group(0).column(n)
        for n in range(metadata.num_columns)
        if metadata.row_group(0).column(n).path_in_schema == name
    ]
    content = bytearray(path.read_bytes())
    start = column.data_page_offset
    place = content.index(old, start, start + 16)
    content[place : place + len(old)] = new
    path.write_bytes(content)


def number(value: int) -> bytes:
    """As Thrift's compact protocol writes it."""
    value, found = value * 2, bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def test_a_header_that_claims_more_than_the_page_has(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", [bytes(2**20)], compression="zstd", use_dictionary=False)
    size = page_sizes(path)[0]
    largest = number(2**26)
    assert len(largest) == len(number(size))
    forge(path, "image", number(size), largest)
    with pytest.raises(Unreadable, match="claims to unpack to 64 MiB"):
        cell(path, 0)


@pytest.mark.parametrize(
    "content", [b"\x00", b"\xff" * 9, b"\x1c" * 9, b"\x19\xfc\xff\xff\xff\x7f"]
)
def test_headers_that_are_none(tmp_path: Path, content: bytes) -> None:
    path = write(tmp_path / "a.parquet", IMAGES, use_dictionary=False)
    start = pq.read_metadata(path).row_group(0).column(0).data_page_offset
    forged = bytearray(path.read_bytes())
    forged[start : start + len(content)] = content
    path.write_bytes(forged)
    with pytest.raises(Unreadable, match="damaged"):
        cell(path, 0)


def test_one_image_that_all_rows_repeat(tmp_path: Path) -> None:
    """A page holds it once; the rows that are read together must not hold it 64 times."""
    script = """
import resource, sys
from pathlib import Path
from promptot.data.arrow_columns import ColumnFile, read_cell
from promptot.files.file_version import times_of
path = Path(sys.argv[1])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state = path.stat()
try:
    print(len(read_cell(str(path), times_of(state), state.st_size, "image", 0)))
except ValueError as error:
    print(error)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    path = write(tmp_path / "a.parquet", [bytes(30_000_000)] * 60, compression="zstd")
    assert path.stat().st_size < 10_000
    said = subprocess.run(
        [sys.executable, "-c", script, str(path)], check=True, capture_output=True, text=True
    ).stdout.split("\n")
    assert "holds more than 1 GiB" in said[0]
    assert int(said[1]) < 2 * 2**20  # KiB; all rows together are 1.8 GB


# Arrow


def arrow_file(path: Path, kind: str, indexed: bool) -> Path:
    cells = [{"bytes": image, "path": None} for image in IMAGES] if kind == "struct" else IMAGES
    cells = [None if place % 7 == 3 else value for place, value in enumerate(cells)]
    plain = {"large": pa.large_binary(), "binary": pa.binary()}.get(kind)
    column = pa.array(cells, plain) if plain else pa.array(cells)
    table = pa.table({"image": column, "label": range(len(cells))})
    new = pa.ipc.new_file if indexed else pa.ipc.new_stream
    with pa.OSFile(str(path), "wb") as file, new(file, table.schema) as writer:
        writer.write_table(table.slice(5), 8)  # of an array that begins within another
    return path


@pytest.mark.parametrize("kind", ["struct", "binary", "large"])
@pytest.mark.parametrize("indexed", [False, True])
def test_cells_of_arrow_files(tmp_path: Path, kind: str, indexed: bool) -> None:
    path = arrow_file(tmp_path / "a.arrow", kind, indexed)
    expected = [None if place % 7 == 3 else image for place, image in enumerate(IMAGES)][5:]
    assert [cell(path, row) for row in range(len(expected))] == expected
    with pytest.raises(IndexError):
        cell(path, len(expected))
    with pytest.raises(KeyError):
        cell(path, 0, "none")


def test_an_arrow_file_that_is_cut_short_while_in_use(tmp_path: Path) -> None:
    """It ended the process by SIGBUS."""
    path = arrow_file(tmp_path / "a.arrow", "struct", False)
    state = path.stat()
    known = (str(path), times_of(state), state.st_size, "image")
    assert read_cell(*known, 30) == IMAGES[35]
    os.truncate(path, 100)
    with pytest.raises(Unreadable, match="cut short while it was in use"):
        read_cell(*known, 31)
    other = arrow_file(tmp_path / "b.arrow", "struct", False)
    size = other.stat().st_size
    os.truncate(other, size - 50)  # before anything of it was read
    with pytest.raises(Unreadable, match="cut short while it was in use"):
        read_cell(str(other), 1, size, "image", 0)
