"""A forged MATLAB file of some kilobytes never takes more memory than a bound allows."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from promptot.data.catalog.public.listing import read_mat
from promptot.data.catalog.public.matlab_file import LARGEST
from promptot.errors import PromptotError

savemat = pytest.importorskip("scipy.io").savemat


def element(kind: int, content: bytes, order: str = "<") -> bytes:
    return struct.pack(order + "II", kind, len(content)) + content + bytes(-len(content) % 8)


def matrix(kind: int, shape: tuple[int, ...], *content: bytes, name: bytes = b"v") -> bytes:
    return element(14, b"".join([
        element(6, struct.pack("<II", kind, 0)), element(5, struct.pack(f"<{len(shape)}i", *shape)),
        element(1, name), *content,
    ]))  # fmt: skip


def file_of(*elements: bytes) -> bytes:
    return b"MATLAB 5.0 MAT-file".ljust(124) + b"\0\1IM" + b"".join(elements)


def packed(content: bytes) -> bytes:
    compressed = zlib.compress(content, 9)
    return struct.pack("<II", 15, len(compressed)) + compressed


def cells_in_cells(levels: int) -> bytes:
    inner = matrix(1, (0, 0))
    for _ in range(levels):
        inner = matrix(1, (1, 1), inner)
    return inner


def zeros(size: int) -> bytes:
    return matrix(9, (size, 1), element(2, bytes(size)))


FORGED: dict[str, tuple[Callable[[], bytes], str]] = {
    "a packed variable": (lambda: file_of(packed(zeros(2**28))), "unpacks to more"),
    "many of them": (lambda: file_of(*[packed(zeros(2**25))] * 8), "unpacks to more"),
    "cells": (lambda: file_of(matrix(1, (2**31 - 1, 1))), "claims more"),
    "cells of three dimensions": (lambda: file_of(matrix(1, (2**16, 2**16, 4))), "claims more"),
    "structures": (
        lambda: file_of(matrix(2, (2**31 - 1, 1), element(5, b"\4\0\0\0"), element(1, b"abc\0"))),
        "claims more"),
    "structures without fields": (
        lambda: file_of(matrix(2, (2**31 - 1, 1), element(5, b"\4\0\0\0"), element(1, b""))),
        "claims more"),
    "characters": (lambda: file_of(matrix(4, (2**31 - 1, 1), element(16, b""))), "claims more"),
    "numbers": (lambda: file_of(matrix(6, (2**31 - 1, 2**31 - 1), element(9, b""))), "claims"),
    "negative": (lambda: file_of(matrix(1, (-1, -(2**31)))), "claims more"),
    "levels": (lambda: file_of(packed(cells_in_cells(5000))), "more than 20 levels"),
    "cut": (lambda: file_of(element(14, bytes(4096)))[:-1000], "cut short"),
    "a function": (lambda: file_of(matrix(16, (1, 1))), "other variables"),
    "version 4": (lambda: struct.pack("<5I", 0, 2**16, 2**16, 0, 2) + bytes(200), "no MATLAB 5"),
    "not packed": (lambda: file_of(struct.pack("<II", 15, 9) + bytes(9)), "Can't read"),
}  # fmt: skip


@pytest.mark.parametrize("name", FORGED)
def test_forged_files_are_refused(tmp_path: Path, name: str) -> None:
    make, reason = FORGED[name]
    (tmp_path / "a.mat").write_bytes(make())
    assert (tmp_path / "a.mat").stat().st_size < 2**19
    began = time.monotonic()
    tracemalloc.start()
    try:
        with pytest.raises(PromptotError, match=reason):
            read_mat(tmp_path / "a.mat", "v")
        assert tracemalloc.get_traced_memory()[1] < 4 * LARGEST
    finally:
        tracemalloc.stop()
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize(
    "value",
    [
        np.arange(5000, dtype=np.uint8), np.eye(7), 3, "text", np.zeros((0, 0)), 1 + 2j,
        np.array(["a", "bc"], dtype=object), {"a": 1, "b": {"c": "text"}}, np.array(["é"] * 3),
        np.array([(n, f"{n:05}.jpg") for n in range(99)], [("class", object), ("fname", object)]),
        np.array([[], ["x"], [[1, 2]]], dtype=object),
    ],
    ids=lambda value: str(value)[:12],
)  # fmt: skip
def test_honest_files_are_read_as_scipy_does(tmp_path: Path, value: Any, compressed: bool) -> None:
    from scipy.io import loadmat

    path = tmp_path / "a.mat"
    savemat(path, {"other": [1], "v": value, "more": "x"}, do_compression=compressed)
    expected = loadmat(path, squeeze_me=True)["v"]
    assert repr(read_mat(path, "v")) == repr(expected)


@pytest.mark.slow
def test_large_lists_pass(tmp_path: Path) -> None:
    """Twice as many images as StanfordCars has, described as there."""
    kinds = [(field, object) for field in ("x1", "y1", "x2", "y2", "class", "fname")]
    listed = np.array([(9, 9, 9, 9, n % 196, f"{n:05}.jpg") for n in range(32_000)], kinds)
    savemat(tmp_path / "a.mat", {"annotations": listed}, do_compression=True)
    assert len(read_mat(tmp_path / "a.mat", "annotations")) == 32_000
