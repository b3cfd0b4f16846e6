"""Writing files: all or nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from promptot.errors import PromptotError, nearest
from promptot.files.writing import atomic_write, write_bytes, write_json, write_text


def test_what_is_written_is_there_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "deep" / "a.txt", "süß\n")
    write_bytes(tmp_path / "b.bin", b"\0\1")
    write_json(tmp_path / "c.json", {"name": "日本"})
    assert (tmp_path / "deep" / "a.txt").read_bytes() == "süß\n".encode()
    assert (tmp_path / "b.bin").read_bytes() == b"\0\1"
    assert "日本" in (tmp_path / "c.json").read_text(encoding="utf-8")
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*")}
    assert names == {"deep", os.path.join("deep", "a.txt"), "b.bin", "c.json"}  # noqa: PTH118


@pytest.mark.parametrize("error", [ValueError("broke"), KeyboardInterrupt()])
def test_an_interruption_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    write_text(tmp_path / "a.txt", "old")

    def write_half() -> None:
        with atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_text("half of the new")
            raise error

    with pytest.raises(type(error)):
        write_half()
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert (tmp_path / "a.txt").read_text() == "old"


def test_a_full_disk_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_text(tmp_path / "a.txt", "old")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PromptotError, match="No space left.*what was there before is intact"):
        write_bytes(tmp_path / "a.txt", b"new")
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_a_place_that_is_no_folder_is_explained(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "")
    with pytest.raises(PromptotError, match="Can't write"):
        write_text(tmp_path / "file" / "a.txt", "")


def test_json_that_is_not_json_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(tmp_path / "a.json", float("nan"))
    assert list(tmp_path.iterdir()) == []


def test_the_nearest_name() -> None:
    assert nearest("ivpl", ["ivlp", "prompt-ot"]).startswith("Did you mean 'ivlp'?")
    assert "Did you mean" not in nearest("zzz", ["ivlp", "prompt-ot"])
