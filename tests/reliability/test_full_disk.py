"""A disk without space is one sentence, whatever was being written; what was there stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tree import snapshot

import promptot
from promptot.backbones import Backbone, load_backbone
from promptot.errors import CannotWrite
from promptot.experiments import benchmark
from promptot.files.writing import atomic_write
from promptot.serving.flags import Flag, FlagFile

resource = pytest.importorskip("resource", reason="POSIX calls")
FULL = "No space left on the disk"


@pytest.fixture(scope="module")
def small(small_file: Path) -> Backbone:
    return load_backbone(f"openai:{small_file}")


@pytest.fixture(scope="module")
def trained(small: Backbone, few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("trained") / "run"
    promptot.fit(
        few_photos, out, backbone=small, device="cpu", shots=2, recipe="ivlp", report=False,
        overrides=["optim.epochs=1"],
    )  # fmt: skip
    return out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=400k", "none", str(place)]
    if sys.platform != "linux" or os.geteuid() != 0 or subprocess.run(command).returncode:
        pytest.skip("needs the right to mount a small disk")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


@contextmanager
def filled(disk: Path, but: int = 0) -> Iterator[None]:
    """Nothing is free but some kB."""
    free = shutil.disk_usage(disk).free
    filler = disk / "filler"
    filler.write_bytes(b"\0" * (free - 1024 * but))
    try:
        yield
    finally:
        filler.unlink()


@contextmanager
def limited_files(size: int) -> Iterator[None]:
    """No file of this process can grow beyond `size` bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def no_partials(place: Path) -> bool:
    return not list(place.rglob(".partial-*"))


@pytest.mark.parametrize("format", ["torchscript", "onnx", "open_clip"])
def test_an_export_that_does_not_fit(
    trained: Path, small: Backbone, disk: Path, format: str
) -> None:
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    (disk / "out").mkdir()
    (disk / "mine.txt").write_text("mine")
    before = snapshot(disk / "out", disk / "mine.txt")
    for room in (0, 8, 60):
        with filled(disk, room), pytest.raises(CannotWrite, match=FULL):
            promptot.export(trained, disk / "out", format, backbone=small)
        assert snapshot(disk / "out", disk / "mine.txt") == before
        assert no_partials(disk)


@pytest.mark.parametrize("format", ["torchscript", "onnx", "open_clip"])
def test_an_export_whose_files_may_not_grow(
    trained: Path, small: Backbone, tmp_path: Path, format: str
) -> None:
    """The same without the right to mount a disk; an old export stays."""
    if format == "onnx":
        pytest.importorskip("onnxruntime")
    promptot.export(trained, tmp_path / "out", "torchscript", backbone=small)
    before = snapshot(tmp_path / "out")
    with limited_files(20_000), pytest.raises(CannotWrite, match="Can't write .*File too large"):
        promptot.export(trained, tmp_path / "out", format, backbone=small, overwrite=True)
    assert snapshot(tmp_path / "out") == before
    assert no_partials(tmp_path)


def test_a_benchmark_keeps_its_finished_cells(
    small: Backbone, few_photos: Path, disk: Path
) -> None:
    def call(methods: str) -> object:
        return benchmark(
            "base-to-novel", disk / "out", methods=methods, tasks=[str(few_photos)], seeds=[1],
            shots=[1], backbone=small, overrides=["optim.epochs=1"],
        )  # fmt: skip

    call("zero-shot")
    results = disk / "out" / "results.jsonl"
    lines = results.read_bytes()
    for room in (0, 4):
        with filled(disk, room), pytest.raises(CannotWrite, match=FULL):
            call("zero-shot,ivlp,prompt-ot,maple,vpt")
        assert results.read_bytes().startswith(lines)
        assert results.read_bytes().endswith(b"\n")
        assert b'"problem"' not in results.read_bytes()  # no cell is blamed for it
        assert no_partials(disk)
    call("zero-shot,ivlp")


def test_a_benchmark_that_can_not_keep_its_features(
    small: Backbone, few_photos: Path, disk: Path
) -> None:
    with filled(disk, 8), pytest.raises(CannotWrite, match=f"{FULL} while writing .*cache"):
        benchmark(
            "base-to-novel", disk / "out", methods="zero-shot", tasks=[str(few_photos)],
            seeds=[1], shots=[1], backbone=small,
        )  # fmt: skip
    assert no_partials(disk)


def test_a_tuning_keeps_its_finished_points(small: Backbone, few_photos: Path, disk: Path) -> None:
    def call(budget: float) -> object:
        return promptot.tune(
            few_photos, disk / "out", backbone=small, shots=1, device="cpu", budget=budget,
            validation_share=0.5, overrides=["optim.epochs=1"], fewest_images=3, report=False,
        )  # fmt: skip

    with filled(disk, 4), pytest.raises(CannotWrite, match=FULL):
        call(1e-6)
    assert no_partials(disk)
    call(1e-6)
    before = {p: p.read_bytes() for p in (disk / "out").iterdir() if p.is_file()}
    with filled(disk), pytest.raises(CannotWrite, match=FULL):
        call(1e6)
    assert {p: p.read_bytes() for p in (disk / "out").iterdir() if p.is_file()} == before
    assert no_partials(disk)


def test_flags_that_do_not_fit_leave_no_half_row(disk: Path) -> None:
    file = FlagFile(disk / "flags.csv")
    answer = {"name": "x" * 300, "probability": 0.5}
    flag = Flag.model_validate(
        {"image": "y" * 300, "sha256": "0" * 64, "strength": 0.5, "frozen": answer,
         "adapted": answer, "between": answer}
    )  # fmt: skip
    file.add(flag)
    before = b""

    def add_until_full() -> None:
        nonlocal before
        for _ in range(10):  # some room is left in the file's last page
            before = (disk / "flags.csv").read_bytes()
            file.add(flag)

    with filled(disk):
        with pytest.raises(CannotWrite, match=FULL):
            add_until_full()
        assert (disk / "flags.csv").read_bytes() == before
    assert file.add(flag) == before.count(b"\n")


REPORTED: dict[str, Callable[[], Exception]] = {
    "safetensors": lambda: RuntimeError("I/O error: No space left on device (os error 28)"),
    "the system": lambda: OSError(28, "No space left on device"),
}


@pytest.mark.skipif(os.name == "nt", reason="numbers of POSIX")
@pytest.mark.parametrize("by", REPORTED)
def test_a_full_disk_in_the_words_of_a_library(tmp_path: Path, by: str) -> None:
    def write() -> None:
        with atomic_write(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise REPORTED[by]()

    with pytest.raises(CannotWrite, match=FULL):
        write()
    assert list(tmp_path.iterdir()) == []
